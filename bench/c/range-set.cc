// Ranges that do not overlap in a std::map by start: what a C++ programmer would write for type1's dma_list.
#include <map>
#include <vector>
#include "bench.h"

namespace {

struct Range {
  uint64_t end;
  int32_t value;
};

class RangeMap {
 public:
  int32_t find(uint64_t point) const {
    auto at = ranges.upper_bound(point);
    if (at == ranges.begin()) return -1;
    --at;
    return at->second.end > point ? at->second.value : -1;
  }

  bool insert(uint64_t start, uint64_t end, int32_t value) {
    auto after = ranges.lower_bound(start);
    if (after != ranges.end() && after->first < end) return false;
    if (after != ranges.begin() && std::prev(after)->second.end > start) return false;
    ranges.emplace_hint(after, start, Range{end, value});
    return true;
  }

  int32_t remove(uint64_t start) {
    auto at = ranges.find(start);
    if (at == ranges.end()) return -1;
    int32_t value = at->second.value;
    ranges.erase(at);
    return value;
  }

 private:
  std::map<uint64_t, Range> ranges;
};

// Every second page is taken.
uint64_t start_of(int32_t i) { return static_cast<uint64_t>(i) * 8192 + 0x100000000ull; }

struct Scene {
  RangeMap set;
  std::vector<int32_t> order;
  size_t at = 0;

  explicit Scene(int count) : order(count) {
    uint32_t state = 0x9e3779b9;
    bench_shuffle(order.data(), count, &state);
    for (int32_t i : order) set.insert(start_of(i), start_of(i) + 4096, i);
    bench_shuffle(order.data(), count, &state);
  }

  void find(long operations) {
    uint64_t sum = 0;
    for (long n = 0; n < operations; n++) {
      sum += set.find(start_of(order[at]) + 64);
      if (++at == order.size()) at = 0;
    }
    bench_sink = sum;
  }

  void replace(long operations) {
    uint64_t sum = 0;
    for (long n = 0; n < operations; n++) {
      uint64_t start = start_of(order[at]);
      int32_t value = set.remove(start);
      sum += set.insert(start, start + 4096, value);
      if (++at == order.size()) at = 0;
    }
    bench_sink = sum;
  }
};

Scene &small() {
  static Scene scene(100000);
  return scene;
}
Scene &large() {
  static Scene scene(1000000);
  return scene;
}

}  // namespace

int main() {
  small();
  large();
  const bench_case cases[] = {
      {"find-100k", [](long n) { small().find(n); }},
      {"replace-100k", [](long n) { small().replace(n); }},
      {"find-1M", [](long n) { large().find(n); }},
      {"replace-1M", [](long n) { large().replace(n); }},
  };
  return bench_serve(cases, 4);
}
