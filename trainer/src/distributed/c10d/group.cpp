// What c10d.rs calls: joining a group of processes, sums, copies and keys.

#include "group.hpp"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef ANATOMIX_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <unistd.h>

#include <cstring>

std::string& latest_error() {
  thread_local std::string text;
  return text;
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The sum over all processes, whose gradient is the sum of the gradients of all processes.
struct Sum : torch::autograd::Function<Sum> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t group) {
    context->saved_data["group"] = group;
    return summed(x.detach(), group);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {summed(gradients.at(0), context->saved_data["group"].toInt()), at::Tensor()};
  }

  static at::Tensor summed(const at::Tensor& x, int64_t group) {
    auto* own = reinterpret_cast<Group*>(group);
    auto sum = x.clone(at::MemoryFormat::Contiguous);
    if (guarded([&] { own->begin_sum(sum)->wait(); }) != 0 && own->failure.empty()) {
      own->failure = latest_error();
    }
    return sum;
  }
};

c10::intrusive_ptr<c10d::Backend> backend(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int processes, bool cuda, std::chrono::milliseconds timeout) {
  if (!cuda) {
    return c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, rank, processes, c10d::ProcessGroupGloo::Options::create_default(timeout));
  }
#ifdef ANATOMIX_NCCL
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, processes, options);
#else
  throw std::runtime_error("this trainer was built without NCCL; build it with `make trainer-cuda`, which says what is missing");
#endif
}

} // namespace

extern "C" {

const char* anatomix_group_error() {
  return latest_error().c_str();
}

// Opens the keys and values of a group; the process that serves holds them.
void* anatomix_store_open(const char* host, uint16_t port, int serve, const char* prefix, int64_t timeout_ms) {
  c10::intrusive_ptr<c10d::Store>* opened = nullptr;
  guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve != 0;
    options.waitWorkers = false;
    options.multiTenant = serve != 0;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
    opened = new c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(store)));
  });
  return opened;
}

void anatomix_store_close(void* store) {
  guarded([&] { delete static_cast<c10::intrusive_ptr<c10d::Store>*>(store); });
}

int anatomix_store_set(void* store, const char* key, const uint8_t* value, size_t length) {
  return guarded([&] {
    (*static_cast<c10::intrusive_ptr<c10d::Store>*>(store))->set(key, std::vector<uint8_t>(value, value + length));
  });
}

// Sets a key that has no value. Either way `out` gets the value that it has then, and the result is its whole length, or -1.
int64_t anatomix_store_claim(void* store, const char* key, const uint8_t* value, size_t length, uint8_t* out, size_t capacity) {
  int64_t found = -1;
  guarded([&] {
    auto& own = *static_cast<c10::intrusive_ptr<c10d::Store>*>(store);
    auto bytes = own->compareSet(key, std::vector<uint8_t>(), std::vector<uint8_t>(value, value + length));
    std::memcpy(out, bytes.data(), std::min(capacity, bytes.size()));
    found = static_cast<int64_t>(bytes.size());
  });
  return found;
}

// Reads a key into `out`. The result is the length of the value, 0 for a key without one, or -1.
int64_t anatomix_store_get(void* store, const char* key, uint8_t* out, size_t capacity) {
  int64_t found = -1;
  guarded([&] {
    auto& own = *static_cast<c10::intrusive_ptr<c10d::Store>*>(store);
    if (!own->check({key})) {
      found = 0;
      return;
    }
    auto bytes = own->get(key);
    std::memcpy(out, bytes.data(), std::min(capacity, bytes.size()));
    found = static_cast<int64_t>(bytes.size());
  });
  return found;
}

// Joins the group; a CUDA device of less than 0 means the CPU.
Group* anatomix_group_join(void* store, int rank, int processes, int cuda, int64_t timeout_ms) {
  Group* joined = nullptr;
  guarded([&] {
    auto group = std::make_unique<Group>();
    group->store = c10::make_intrusive<c10d::PrefixStore>("c10d", *static_cast<c10::intrusive_ptr<c10d::Store>*>(store));
    group->backend = backend(group->store, rank, processes, cuda >= 0, std::chrono::milliseconds(timeout_ms));
    group->device = cuda < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(cuda));
    joined = group.release();
  });
  return joined;
}

void anatomix_group_leave(Group* group) {
  guarded([&] { delete group; });
}

int anatomix_group_sum(Group* group, const at::Tensor* tensor) {
  return guarded([&] { group->begin_sum(*tensor)->wait(); });
}

// A new tensor with the sum over all processes, through which gradients flow.
at::Tensor* anatomix_group_sum_with_gradient(Group* group, const at::Tensor* tensor) {
  at::Tensor* sum = nullptr;
  guarded([&] { sum = new at::Tensor(Sum::apply(*tensor, reinterpret_cast<int64_t>(group))); });
  return sum;
}

int anatomix_group_broadcast(Group* group, const at::Tensor* tensor, int from) {
  return guarded([&] { group->broadcast(*tensor, from); });
}

int anatomix_group_gather(Group* group, const at::Tensor* all, const at::Tensor* own) {
  return guarded([&] { group->gather(*all, *own); });
}

int anatomix_host_name(char* out, size_t capacity) {
  return gethostname(out, capacity);
}
}
