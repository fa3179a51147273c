// A group of processes: torch's c10d behind a few calls.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <string>

struct Group {
  // Keys and values of all processes, for messages.
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> backend;
  at::Device device = at::kCPU;
  // The first failure inside of forward and backward passes, which cannot end them; `Gradients::finish` tells it.
  std::string failure;

  // Replaces a tensor by the sum over all processes, which begins and may still run when this returns.
  c10::intrusive_ptr<c10d::Work> begin_sum(at::Tensor tensor) {
    std::vector<at::Tensor> tensors{std::move(tensor)};
    return backend->allreduce(tensors);
  }

  // Replaces a tensor by that of one process.
  void broadcast(at::Tensor tensor, int from) {
    std::vector<at::Tensor> tensors{std::move(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    backend->broadcast(tensors, options)->wait();
  }

  // Puts the tensors of all processes, which have one shape, one after the other into `all`.
  void gather(at::Tensor all, at::Tensor own) {
    backend->_allgather_base(all, own)->wait();
  }
};

// The text of the latest error of this thread.
std::string& latest_error();

// Calls a function; returns 0, or 1 after an exception, whose text it keeps.
template <typename Function>
int guarded(Function&& function) noexcept {
  try {
    function();
    return 0;
  } catch (const c10::Error& error) {
    latest_error() = error.what_without_backtrace();
  } catch (const std::exception& error) {
    latest_error() = error.what();
  } catch (...) {
    latest_error() = "unknown exception";
  }
  return 1;
}
