// AdamW in one pass over all values. tch has no function for it.

#include "group.hpp"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>

extern "C" {

// Updates `count` parameters: each has four tensors, itself, its gradient, first and second moment. Gradients are divided by `divisor`.
int anatomix_adamw(
    const at::Tensor* const* tensors,
    size_t count,
    double rate,
    double beta1,
    double beta2,
    double decay,
    double epsilon,
    int64_t step,
    double divisor) {
  return guarded([&] {
    if (count == 0) {
      return;
    }
    c10::AutoGradMode no_gradients(false);
    std::vector<at::Tensor> lists[4];
    for (size_t i = 0; i < 4 * count; ++i) {
      lists[i % 4].push_back(*tensors[i]);
    }
    const auto options = lists[0].front().options().requires_grad(false);
    const std::vector<at::Tensor> steps(count, at::full({}, step, options));
    const auto scale = divisor == 1.0 ? std::nullopt : std::make_optional(at::full({}, divisor, options));
    const bool amsgrad = false, maximize = false;
    at::_fused_adamw_(
        lists[0], lists[1], lists[2], lists[3], {}, steps, rate, beta1, beta2, decay, epsilon, amsgrad, maximize, scale);
  });
}
}
