// Threads that help where there is a core for them. Whoever shares work does it as well, and waits
// at the end only for what a helper has begun: one that waits for a core holds up nobody.
//
// Parts of the work are claimed by one atomic word: the number of the work, and of its next part.

#pragma once

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace {

class Helpers {
 public:
  // Those of this library, which nobody ends: it stays loaded as long as its process lives. A
  // forked process has none of their threads, and maybe their lock, so it begins anew.
  static Helpers& all() {
    static const int is_told = pthread_atfork(nullptr, nullptr, [] { current() = new Helpers; });
    (void)is_told;
    return *current();
  }

  // work(i) for each i below `parts`, by at most so many threads. If another thread shares work
  // at this time, or there are no helpers, by the calling thread alone.
  template <typename Work>
  void share(int64_t parts, int64_t threads, const Work& work) {
    if (is_busy_.test_and_set(std::memory_order_acquire)) {
      for (int64_t i = 0; i < parts; i++) work(i);
      return;
    }
    start(threads - 1);
    offer(parts, [](const void* of, int64_t i) { (*(const Work*)of)(i); }, &work);
    while (take_part()) {
    }
    // A part takes less than the look: whoever yields gives its core away for milliseconds.
    for (int64_t looks = 0; num_done_.load(std::memory_order_acquire) < parts; looks++)
      if (looks < PATIENCE)
        rest();
      else
        std::this_thread::yield();
    is_busy_.clear(std::memory_order_release);
  }

 private:
  static Helpers*& current() {
    static Helpers* made = new Helpers;
    return made;
  }

  typedef void (*Call)(const void* of, int64_t i);
  static constexpr uint64_t NEXT = uint64_t(1) << 32;  // one more piece of work
  static constexpr uint64_t PART = NEXT - 1;           // the mask of a part; also: none left
  static constexpr int64_t PATIENCE = 10000;           // looks before a helper sleeps: some 200 us

  void offer(int64_t parts, Call call, const void* of) {
    const uint64_t number = claimed_.load(std::memory_order_relaxed) / NEXT * NEXT;
    claimed_.store(number + NEXT + PART);  // claims of the old work fail from now on
    parts_.store(parts);
    call_.store(call);
    of_.store(of);
    num_done_.store(0);
    claimed_.store(number + 2 * NEXT);
    if (num_asleep_.load() == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    wakes_.notify_all();
  }

  bool take_part() {
    uint64_t claim = claimed_.load();
    while (has_parts(claim)) {
      const Call call = call_.load();
      const void* const of = of_.load();
      if (!claimed_.compare_exchange_weak(claim, claim + 1)) continue;
      call(of, int64_t(claim & PART));
      num_done_.fetch_add(1, std::memory_order_release);
      return true;
    }
    return false;
  }

  bool has_parts(uint64_t claim) { return int64_t(claim & PART) < parts_.load(); }

  void start(int64_t wanted) {
    for (; num_started_ < wanted; num_started_++) {
      sigset_t all, before;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for other threads
      try {
        keep_loaded();
        std::thread([this] { help(); }).detach();
      } catch (const std::system_error&) {
        num_started_ = wanted;  // no more are allowed here
      }
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
  }

  void keep_loaded() {
    Dl_info info;
    if (dladdr((const void*)&Helpers::all, &info))
      dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  }

  // Between the products of a step it looks all the time: giving its core away would cost more.
  [[noreturn]] void help() {
    for (int64_t misses = 0;;) {
      if (has_parts(claimed_.load())) {
        std::this_thread::yield();  // whoever wants this core takes it now, and not in a part
        while (take_part()) misses = 0;
      } else if (++misses < PATIENCE)
        rest();
      else
        sleep(), misses = 0;
    }
  }

  static void rest() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void sleep() {
    std::unique_lock<std::mutex> lock(mutex_);
    num_asleep_.fetch_add(1);
    wakes_.wait(lock, [this] { return has_parts(claimed_.load()); });
    num_asleep_.fetch_sub(1);
  }

  std::atomic_flag is_busy_ = ATOMIC_FLAG_INIT;
  std::atomic<uint64_t> claimed_{PART};
  std::atomic<int64_t> parts_{0}, num_done_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> of_{nullptr};
  std::atomic<int64_t> num_asleep_{0};
  int64_t num_started_ = 0;  // changed by whoever is busy
  std::mutex mutex_;
  std::condition_variable wakes_;
};

}  // namespace
