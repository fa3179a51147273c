// Sums of gradients over all processes, which run while the backward pass still computes other gradients.

#include "group.hpp"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>
#include <mutex>
#include <numeric>

namespace {

// Gradients of some parameters one after the other, and then for each of them 1 if it has a gradient, otherwise 0.
struct Bucket {
  std::vector<size_t> members;
  at::Tensor values;
  size_t missing = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

struct Parameter {
  at::Tensor tensor;
  size_t bucket = 0;
  // Its part of the bucket in the parameter's shape and strides.
  at::Tensor part;
  // How often its gradient is added to in a step, and how often that happened in this one.
  int64_t expected = 0, added = 0;
};

} // namespace

// The first step tells in which order gradients are complete, and how often each is added to: once in each backward pass, and more often if
// a parameter is used in several of its parts. Buckets are made in that order, which is that of process 0 on all processes, so that all
// begin their sums in one order.
class Gradients : public std::enable_shared_from_this<Gradients> {
 public:
  Gradients(Group* group, at::ArrayRef<at::Tensor> tensors, int64_t bytes, bool overlap)
      : group_(group), bytes_(bytes), overlap_(overlap) {
    for (const auto& tensor : tensors) {
      TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.device() == group->device, "a trained parameter is not fp32 on the device");
      parameters_.push_back({tensor});
    }
  }

  ~Gradients() {
    for (const auto& parameter : parameters_) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor, nullptr);
    }
  }

  void listen();

  // Before the backward passes of a step.
  void begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& parameter : parameters_) {
      parameter.added = 0;
    }
    for (auto& bucket : buckets_) {
      bucket.missing = bucket.members.size();
      bucket.work.reset();
    }
    next_ = 0;
    order_.clear();
    error_.clear();
    listening_ = true;
  }

  // A gradient was added to.
  void added(size_t index) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!listening_ || !error_.empty()) {
      return;
    }
    if (guarded([&] { count(index); }) != 0) {
      error_ = latest_error();
    }
  }

  // After the backward passes of a step: waits until all gradients are sums.
  void finish() {
    std::lock_guard<std::mutex> lock(mutex_);
    listening_ = false;
    TORCH_CHECK(group_->failure.empty(), group_->failure);
    TORCH_CHECK(error_.empty(), error_);
    if (buckets_.empty()) {
      make_buckets();
    }
    while (next_ < buckets_.size()) {
      begin_sum(buckets_[next_++]);
    }
    for (auto& bucket : buckets_) {
      bucket.work->wait();
      bucket.work.reset();
      const auto count = static_cast<int64_t>(bucket.members.size());
      const auto have = bucket.values.narrow(0, bucket.values.numel() - count, count).cpu();
      for (int64_t i = 0; i < count; ++i) {
        auto& parameter = parameters_[bucket.members[i]];
        auto& gradient = parameter.tensor.mutable_grad();
        if (have.data_ptr<float>()[i] > 0 && !is_part(gradient, parameter)) {
          gradient = parameter.part;
        }
      }
    }
  }

 private:
  static bool is_part(const at::Tensor& gradient, const Parameter& parameter) {
    return gradient.defined() && gradient.data_ptr() == parameter.part.data_ptr() && gradient.strides() == parameter.part.strides();
  }

  void count(size_t index) {
    auto& parameter = parameters_[index];
    if (++parameter.added == 1) {
      order_.push_back(static_cast<int64_t>(index));
    }
    if (buckets_.empty() || !overlap_ || parameter.added < parameter.expected) {
      return;
    }
    auto& bucket = buckets_[parameter.bucket];
    TORCH_CHECK(!bucket.work, "a gradient was added to more often than in the first step; set overlap = false in [distributed]");
    if (parameter.added == parameter.expected && --bucket.missing == 0) {
      while (next_ < buckets_.size() && buckets_[next_].missing == 0) {
        begin_sum(buckets_[next_++]);
      }
    }
  }

  void begin_sum(Bucket& bucket) {
    at::NoGradGuard guard;
    std::vector<float> have;
    for (const auto index : bucket.members) {
      auto& parameter = parameters_[index];
      const auto& gradient = parameter.tensor.grad();
      have.push_back(gradient.defined() ? 1.0F : 0.0F);
      if (!gradient.defined()) {
        parameter.part.zero_();
      } else if (!is_part(gradient, parameter)) {
        parameter.part.copy_(gradient);
      }
    }
    const auto count = static_cast<int64_t>(have.size());
    bucket.values.narrow(0, bucket.values.numel() - count, count).copy_(at::tensor(have));
    bucket.work = group_->begin_sum(bucket.values);
  }

  void make_buckets() {
    at::NoGradGuard guard;
    const auto total = static_cast<int64_t>(parameters_.size());
    auto told = at::empty({total}, at::kLong);
    std::vector<bool> listed(parameters_.size());
    auto* order = told.data_ptr<int64_t>();
    for (const auto index : order_) {
      listed[index] = true;
    }
    // Those without a gradient come last.
    for (size_t index = 0; index < parameters_.size(); ++index) {
      if (!listed[index]) {
        order_.push_back(static_cast<int64_t>(index));
      }
      parameters_[index].expected = std::max<int64_t>(1, parameters_[index].added);
    }
    std::copy(order_.begin(), order_.end(), order);
    auto sent = told.to(group_->device);
    group_->broadcast(sent, 0);
    told.copy_(sent);
    int64_t size = bytes_;
    for (int64_t at = 0; at < total; ++at) {
      const auto index = static_cast<size_t>(order[at]);
      auto& parameter = parameters_[index];
      const auto own = static_cast<int64_t>(parameter.tensor.nbytes());
      if (size + own > bytes_) {
        buckets_.emplace_back();
        size = 0;
      }
      size += own;
      parameter.bucket = buckets_.size() - 1;
      buckets_.back().members.push_back(index);
    }
    for (auto& bucket : buckets_) {
      int64_t values = static_cast<int64_t>(bucket.members.size());
      for (const auto index : bucket.members) {
        values += parameters_[index].tensor.numel();
      }
      bucket.values = at::zeros({values}, at::TensorOptions().dtype(at::kFloat).device(group_->device));
      int64_t from = 0;
      for (const auto index : bucket.members) {
        const auto& tensor = parameters_[index].tensor;
        const auto contiguous = at::empty(tensor.sizes(), at::TensorOptions().device(at::kMeta));
        const auto strides = tensor.is_non_overlapping_and_dense() ? tensor.strides() : contiguous.strides();
        // Not a view as autograd knows it, so that gradients can be detached in place.
        parameters_[index].part = at::empty({0}, bucket.values.options()).set_(bucket.values.storage(), from, tensor.sizes(), strides);
        from += tensor.numel();
      }
    }
  }

  Group* group_;
  const int64_t bytes_;
  // Whether sums begin before the backward passes are done.
  const bool overlap_;
  std::vector<Parameter> parameters_;
  std::vector<Bucket> buckets_;
  // The first bucket whose sum has not begun.
  size_t next_ = 0;
  // Parameters in the order in which they got gradients in this step.
  std::vector<int64_t> order_;
  bool listening_ = false;
  std::string error_;
  std::mutex mutex_;
};

namespace {

struct Hook : torch::autograd::PostAccumulateGradHook {
  Hook(std::weak_ptr<Gradients> gradients, size_t index) : gradients(std::move(gradients)), index(index) {}

  void operator()(const at::Tensor& /*parameter*/) override {
    if (auto own = gradients.lock()) {
      own->added(index);
    }
  }

  std::weak_ptr<Gradients> gradients;
  size_t index;
};

} // namespace

void Gradients::listen() {
  for (size_t index = 0; index < parameters_.size(); ++index) {
    auto hook = std::make_unique<Hook>(weak_from_this(), index);
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[index].tensor, std::move(hook));
  }
}

extern "C" {

std::shared_ptr<Gradients>* anatomix_gradients_new(
    Group* group, const at::Tensor* const* tensors, size_t count, int64_t bytes, int overlap) {
  std::shared_ptr<Gradients>* made = nullptr;
  guarded([&] {
    std::vector<at::Tensor> own;
    for (size_t i = 0; i < count; ++i) {
      own.push_back(*tensors[i]);
    }
    auto gradients = std::make_shared<Gradients>(group, own, bytes, overlap != 0);
    gradients->listen();
    made = new std::shared_ptr<Gradients>(std::move(gradients));
  });
  return made;
}

void anatomix_gradients_delete(std::shared_ptr<Gradients>* gradients) {
  guarded([&] { delete gradients; });
}

int anatomix_gradients_begin(std::shared_ptr<Gradients>* gradients) {
  return guarded([&] { (*gradients)->begin(); });
}

int anatomix_gradients_finish(std::shared_ptr<Gradients>* gradients) {
  return guarded([&] { (*gradients)->finish(); });
}
}
