// Random numbers that are a function of where they are used, so that an interrupted run and a resumed one, or the
// trainer and the reference, draw the same.
#ifndef HILOMOE_TOOLS_TRAIN_RANDOM_H_
#define HILOMOE_TOOLS_TRAIN_RANDOM_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hilomoe {

// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
inline uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// A stream of numbers for one purpose, told apart by up to four keys.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t key1 = 0, uint64_t key2 = 0, uint64_t key3 = 0)
      : state_(Mix(Mix(Mix(Mix(seed) + key1) + key2) + key3)) {}

  uint64_t Bits() { return Mix(state_ + 0x9E3779B97F4A7C15 * counter_++); }
  // [0, 1)
  double Uniform() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }
  // [0, n), n > 0
  uint64_t Below(uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(Bits()) * n) >> 64);
  }
  // Standard normal (Box and Muller).
  double Normal() {
    const double u = 1 - Uniform(), v = Uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  uint64_t state_;
  uint64_t counter_ = 0;
};

// A random order (Fisher and Yates).
inline void Shuffle(Random random, std::vector<uint32_t>* order) {
  for (size_t i = order->size(); i > 1; --i) std::swap((*order)[i - 1], (*order)[random.Below(i)]);
}

// Which outputs of a block a training step drops; what is kept is scaled by 1 / (1 - rate). Decided per element by a
// hash of 32 bits, so that loops over elements vectorise.
class DropoutMask {
 public:
  DropoutMask() = default;
  DropoutMask(float rate, uint64_t seed, uint64_t step, uint64_t block)
      : threshold_(static_cast<uint32_t>(std::llround(rate * 4294967296.0))), scale_(1 / (1 - rate)) {
    const uint64_t key = Mix(Mix(Mix(seed) + step) + block);
    low_ = static_cast<uint32_t>(key);
    high_ = static_cast<uint32_t>(key >> 32);
  }

  bool active() const { return threshold_ > 0; }
  float scale() const { return scale_; }
  // Of element row * width + column.
  bool Kept(uint32_t element) const {
    uint32_t x = element ^ low_;
    x = (x ^ x >> 16) * 0x21f0aaadU;
    x = ((x ^ x >> 15) + high_) * 0x735a2d97U;
    return (x ^ x >> 15) >= threshold_;
  }
  float Factor(size_t element) const { return Kept(static_cast<uint32_t>(element)) ? scale_ : 0; }

 private:
  uint32_t low_ = 0, high_ = 0;
  uint32_t threshold_ = 0;
  float scale_ = 1;
};

}  // namespace hilomoe

#endif  // HILOMOE_TOOLS_TRAIN_RANDOM_H_
