#include "tools/train/generate_world.h"

#include <algorithm>
#include <utility>

namespace hilomoe {
namespace {

// The sizes of the effects, tuned together: a click rate of about a quarter, an AUC of the truth of about 0.84, and
// columns that tell little by themselves.
constexpr double kBase = -1.9;
constexpr std::array<double, 4> kMatch = {-1.2, 0.5, 1.4, 2.2};  // by levels in common
constexpr std::array<double, World::kInterests> kStrength = {1.2, 1.0, 0.8};
// What interest counts for, by segment and daypart: some people follow it at work, some in the evening.
constexpr double kGate[World::kSegments][World::kDayparts] = {
    {0.6, 1.4, 1.2, 0.8}, {1.0, 0.6, 0.8, 1.6}, {1.5, 1.2, 0.6, 0.7}, {0.7, 0.8, 1.6, 1.1}};
constexpr std::array<double, World::kSegments> kPriceSensitivity = {-0.5, 0.1, 0.8, 1.6};
constexpr std::array<double, 4> kPositionSlope = {0.35, 0.25, 0.15, 0.45};  // by device

constexpr double kTasteDeviation = 0.25;
constexpr double kQualityDeviation = 0.3;
constexpr double kTopicDaypartDeviation = 0.5;
constexpr double kTopicDeviceDeviation = 0.4;
constexpr double kTopicWeekendDeviation = 0.3;
constexpr double kTopicCountryDeviation = 0.3;
constexpr double kSubtopicDeviceDaypartDeviation = 0.5;

constexpr double kItemZipf = 0.9;
constexpr double kActivityZipf = 0.5;
constexpr size_t kPositionLimit = 1024;

double ZipfWeight(size_t rank, double exponent) {
  return PortableExp(-exponent * PortableLog(static_cast<double>(rank + 1)));
}

std::vector<float> Normals(size_t size, double deviation, PortableRandom& random) {
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>(deviation * random.Normal());
  return values;
}

// Fisher and Yates; std::shuffle may differ between standard libraries.
std::vector<uint32_t> Permutation(size_t size, PortableRandom& random) {
  std::vector<uint32_t> order(size);
  for (size_t i = 0; i < size; ++i) order[i] = static_cast<uint32_t>(i);
  for (size_t i = size; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  return order;
}

size_t Daypart(uint32_t hour) { return hour * World::kDayparts / 24; }

}  // namespace

World::World(const WorldOptions& options) {
  PortableRandom random(options.seed);
  MakeItems(options, random);
  MakeUsers(options, random);
  MakeHabits(options, random);
  for (size_t i = 0; i <= kPositionLimit; ++i) {
    log_position_.push_back(PortableLog(static_cast<double>(std::max<size_t>(i, 1))));
  }
}

void World::MakeItems(const WorldOptions& options, PortableRandom& random) {
  const size_t niches = options.topics * kBranches * kBranches;
  std::vector<double> niche_log_price;
  for (size_t i = 0; i < niches; ++i) niche_log_price.push_back(3 + 0.6 * random.Normal());
  for (size_t i = 0; i < options.items; ++i) {
    Item item;
    item.niche = static_cast<uint32_t>(random.Below(niches));
    item.subtopic = static_cast<uint32_t>(item.niche / kBranches);
    item.topic = static_cast<uint32_t>(item.subtopic / kBranches);
    item.quality = static_cast<float>(kQualityDeviation * random.Normal());
    item.relative_price = static_cast<float>(0.5 * random.Normal());
    item.price = static_cast<float>(PortableExp(niche_log_price[item.niche] + item.relative_price));
    items_.push_back(item);
  }
  topics_.resize(options.topics);
  subtopics_.resize(options.topics * kBranches);
  niches_.resize(niches);
  // Popularity is independent of the item's number, so that ids tell nothing by their size.
  const std::vector<uint32_t> order = Permutation(options.items, random);
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const Item& item = items_[order[rank]];
    for (Shelf* shelf : {&all_, &topics_[item.topic], &subtopics_[item.subtopic], &niches_[item.niche]}) {
      shelf->items.push_back(order[rank]);
      shelf->popularity.Add(ZipfWeight(rank, kItemZipf));
    }
  }
}

void World::MakeUsers(const WorldOptions& options, PortableRandom& random) {
  for (size_t i = 0; i < options.users; ++i) {
    User user;
    for (size_t k = 0; k < kInterests; ++k) {
      Interest& interest = user.interests[k];
      const auto taken = [&] {
        return std::any_of(user.interests.begin(), user.interests.begin() + k,
                           [&](const Interest& other) { return other.topic == interest.topic; });
      };
      do {
        interest.topic = static_cast<uint32_t>(random.Below(options.topics));
      } while (taken());
      interest.subtopic = static_cast<uint32_t>(interest.topic * kBranches + random.Below(kBranches));
      interest.niche = static_cast<uint32_t>(interest.subtopic * kBranches + random.Below(kBranches));
      interest.strength = static_cast<float>(kStrength[k]);
    }
    user.taste = static_cast<float>(kTasteDeviation * random.Normal());
    user.segment = static_cast<uint32_t>(random.Below(kSegments));
    user.device = static_cast<uint32_t>(random.Below(kDevices.size()));
    user.country = static_cast<uint32_t>(random.Chance(0.03) ? kUnknownCountry : random.Below(kCountries.size()));
    // Older accounts belong to the later segments more often: the one number that hints at the segment.
    const double log_days = 4 + 0.7 * static_cast<double>(user.segment) + 0.8 * random.Normal();
    user.account_days = random.Chance(0.1) ? -1 : static_cast<int32_t>(PortableExp(std::min(log_days, 9.0)));
    users_.push_back(user);
    activity_.Add(ZipfWeight(i, kActivityZipf));
  }
}

void World::MakeHabits(const WorldOptions& options, PortableRandom& random) {
  const size_t topics = options.topics;
  topic_daypart_ = Normals(topics * kDayparts, kTopicDaypartDeviation, random);
  topic_device_ = Normals(topics * kDevices.size(), kTopicDeviceDeviation, random);
  topic_weekend_ = Normals(topics * 2, kTopicWeekendDeviation, random);
  topic_country_ = Normals(topics * (kCountries.size() + 1), kTopicCountryDeviation, random);
  subtopic_device_daypart_ =
      Normals(topics * kBranches * kDevices.size() * kDayparts, kSubtopicDeviceDaypartDeviation, random);
}

uint32_t World::DrawDevice(const User& user, PortableRandom& random) const {
  if (random.Chance(0.7)) return user.device;
  return static_cast<uint32_t>(random.Below(kDevices.size()));
}

size_t World::DrawItem(const User& user, PortableRandom& random) const {
  const double u = random.Uniform();
  const Interest& interest = user.interests[u < 0.45 ? 0 : u < 0.8 ? 1 : 2];
  const double breadth = random.Uniform();
  const Shelf* shelf = &all_;
  if (breadth < 0.2) {
    shelf = &niches_[interest.niche];
  } else if (breadth < 0.4) {
    shelf = &subtopics_[interest.subtopic];
  } else if (breadth < 0.6) {
    shelf = &topics_[interest.topic];
  }
  if (shelf->items.empty()) shelf = &all_;
  return shelf->items[shelf->popularity.Draw(random)];
}

double World::ClickProbability(const User& user, const Context& context, const Item& item, double discount,
                               size_t position) const {
  const size_t daypart = Daypart(context.hour);
  size_t levels = 0;
  double strength = 1;
  for (const Interest& interest : user.interests) {
    if (interest.topic != item.topic) continue;
    levels = interest.niche == item.niche ? 3 : interest.subtopic == item.subtopic ? 2 : 1;
    strength = interest.strength;
  }
  const size_t topic = item.topic;
  const size_t devices = kDevices.size();
  const size_t weekend = context.weekday >= 5 ? 1 : 0;
  const double relative_price = item.relative_price + PortableLog(discount);
  const double logit = kBase + user.taste + item.quality + kGate[user.segment][daypart] * strength * kMatch[levels] +
                       topic_daypart_[topic * kDayparts + daypart] + topic_device_[topic * devices + context.device] +
                       topic_weekend_[topic * 2 + weekend] +
                       topic_country_[topic * (kCountries.size() + 1) + user.country] +
                       subtopic_device_daypart_[(item.subtopic * devices + context.device) * kDayparts + daypart] -
                       kPositionSlope[context.device] * log_position_[std::min(position, kPositionLimit)] -
                       kPriceSensitivity[user.segment] * relative_price;
  return 1 / (1 + PortableExp(-logit));
}

}  // namespace hilomoe
