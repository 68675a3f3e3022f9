// The people, items and habits behind a synthetic click log, and the true probability of a click.
//
// Items sit in a tree: topic -> 3 subtopics -> 3 niches each. A user has three interests of falling strength, each a
// topic with a favoured subtopic and a favoured niche in it. The logit of a click of user u on item i in a context c:
//
//     base + taste(u) + quality(i)
//   + gate(segment(u), daypart(c)) * strength(u, topic(i)) * match(u, i)    0 / 1 / 2 / 3 levels of the tree in common
//   + habit(topic(i), daypart(c)) + habit(topic(i), device(c)) + habit(topic(i), weekend(c)) + habit(topic(i),
//   country(u))
//   + habit(subtopic(i), device(c), daypart(c))
//   - slope(device(c)) * ln(position)
//   - sensitivity(segment(u)) * ln(price / the niche's usual price)
//
// Subtopic, niche, segment and all effects are hidden: a model has to find them in the ids, the history and the clicks.
// Most of the variance lies in products of user, item and context; what single columns tell is the smaller part.
//
// Threads: const after construction.
#ifndef HILOMOE_TOOLS_TRAIN_GENERATE_WORLD_H_
#define HILOMOE_TOOLS_TRAIN_GENERATE_WORLD_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tools/train/generate_random.h"

namespace hilomoe {

struct WorldOptions {
  uint64_t seed = 1;
  size_t users = 0;
  size_t items = 0;
  size_t topics = 0;  // >= kInterests
};

class World {
 public:
  static constexpr size_t kInterests = 3;
  static constexpr size_t kBranches = 3;  // subtopics of a topic, niches of a subtopic
  static constexpr size_t kSegments = 4;
  static constexpr size_t kDayparts = 4;  // night, morning, afternoon, evening: 6 hours each
  static constexpr std::array<std::string_view, 4> kDevices = {"phone", "tablet", "desktop", "tv"};
  static constexpr std::array<std::string_view, 8> kCountries = {"BR", "DE", "FR", "GB", "IN", "JP", "US", "ZA"};
  static constexpr size_t kUnknownCountry = kCountries.size();

  struct Item {
    uint32_t topic;
    uint32_t subtopic;  // counted through all topics
    uint32_t niche;     // counted through all subtopics
    float quality;
    float price;           // usual
    float relative_price;  // ln(price / the niche's usual price)
  };
  struct Interest {
    uint32_t topic;
    uint32_t subtopic;
    uint32_t niche;
    float strength;
  };
  struct User {
    std::array<Interest, kInterests> interests;  // strongest first
    float taste;
    uint32_t segment;
    uint32_t device;       // the usual one
    uint32_t country;      // index into kCountries, or kUnknownCountry
    int32_t account_days;  // on the first day; negative = unknown
  };
  struct Context {
    uint32_t hour;
    uint32_t weekday;  // 0 = Monday
    uint32_t device;
  };

  explicit World(const WorldOptions& options);

  const Item& item(size_t i) const { return items_[i]; }
  const User& user(size_t u) const { return users_[u]; }
  size_t items() const { return items_.size(); }

  size_t DrawUser(PortableRandom& random) const { return activity_.Draw(random); }
  uint32_t DrawDevice(const User& user, PortableRandom& random) const;
  // As a recommender would: mostly from the user's interests, some of it at large; popular items more often (Zipf).
  size_t DrawItem(const User& user, PortableRandom& random) const;

  // `discount` is the offered price over the usual one; `position` counts from 1.
  double ClickProbability(const User& user, const Context& context, const Item& item, double discount,
                          size_t position) const;

 private:
  struct Shelf {
    std::vector<uint32_t> items;
    Discrete popularity;
  };

  void MakeItems(const WorldOptions& options, PortableRandom& random);
  void MakeUsers(const WorldOptions& options, PortableRandom& random);
  void MakeHabits(const WorldOptions& options, PortableRandom& random);

  std::vector<Item> items_;
  std::vector<User> users_;
  Discrete activity_;
  Shelf all_;
  std::vector<Shelf> topics_;
  std::vector<Shelf> subtopics_;
  std::vector<Shelf> niches_;

  std::vector<float> topic_daypart_;            // [topics, dayparts]
  std::vector<float> topic_device_;             // [topics, devices]
  std::vector<float> topic_weekend_;            // [topics, 2]
  std::vector<float> topic_country_;            // [topics, countries + 1]
  std::vector<float> subtopic_device_daypart_;  // [subtopics, devices, dayparts]
  std::vector<double> log_position_;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_GENERATE_WORLD_H_
