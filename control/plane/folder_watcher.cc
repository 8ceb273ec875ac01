// SPDX-License-Identifier: Apache-2.0
#include "control/plane/folder_watcher.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "proxy/base/task.h"

namespace weft::plane {
namespace {

constexpr uint32_t kEvents = IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM |
                             IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;

}  // namespace

// Shared with the handlers that are under way: they hold it weakly, so the watcher may go at any
// time.
struct FolderWatcher::State : std::enable_shared_from_this<FolderWatcher::State> {
  using Clock = std::chrono::steady_clock;

  State(asio::any_io_executor executor, std::string folder_path, OnFiles callback,
        WatcherTimes given)
      : folder(std::move(folder_path)),
        on_files(std::move(callback)),
        times(given),
        inotify(executor),
        settle_timer(executor),
        rescan_timer(executor) {}

  absl::Status Watch() {
    const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "inotify");
    boost::system::error_code error;
    inotify.assign(fd, error);
    if (error) {
      close(fd);
      return absl::InternalError("inotify: " + error.message());
    }
    AddWatch();
    AwaitEvents();
    return absl::OkStatus();
  }

  // Again after the folder was replaced; the kernel returns the same number if it is the same
  // folder.
  void AddWatch() {
    if (inotify.is_open())
      inotify_add_watch(inotify.native_handle(), folder.path().c_str(), kEvents);
  }

  void AwaitEvents() {
    inotify.async_wait(asio::posix::stream_descriptor::wait_read,
                       [weak = weak_from_this()](const boost::system::error_code& error) {
                         const auto self = weak.lock();
                         if (!self || error) return;
                         if (self->TakeEvents()) self->Settle(self->times.settle);
                         self->AwaitEvents();
                       });
  }

  // Reads all events there are; true if any may matter.
  bool TakeEvents() {
    if (!inotify.is_open()) return false;
    alignas(inotify_event) char buffer[16 * 1024];
    bool any = false;
    for (;;) {
      const ssize_t n = read(inotify.native_handle(), buffer, sizeof buffer);
      if (n <= 0) return any;
      for (ssize_t at = 0; at < n;) {
        inotify_event event;
        memcpy(&event, buffer + at, sizeof event);
        const char* name = event.len > 0 ? buffer + at + sizeof event : "";
        any |= TakeEvent(event, name);
        at += static_cast<ssize_t>(sizeof event + event.len);
      }
    }
  }

  bool TakeEvent(const inotify_event& event, const char* name) {
    if (event.mask & IN_IGNORED) return false;
    if (event.mask & (IN_CREATE | IN_MODIFY)) {
      folder.Note(name, ManifestFolder::Change::kWriting, Clock::now());
    } else if (event.mask & (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)) {
      folder.Note(name, ManifestFolder::Change::kComplete, Clock::now());
    }
    return true;
  }

  void Settle(Clock::duration time) {
    settle_timer.expires_after(time);
    settle_timer.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (self && !error) self->Load();
    });
  }

  void Load() {
    if (TakeEvents()) return Settle(times.settle);
    const std::string before = folder.Fingerprint();
    auto files = folder.Read(Clock::now());
    // What changed while it was read is read again, before anybody sees it.
    if (TakeEvents()) return Settle(times.settle);
    fingerprint = before;
    const auto deadline = folder.NextDeadline();
    if (deadline != ManifestFolder::Time::max()) {
      Settle(std::max<Clock::duration>(deadline - Clock::now(), times.settle));
    }
    on_files(std::move(files));
  }

  void Rescan() {
    rescan_timer.expires_after(times.rescan);
    rescan_timer.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
      const auto self = weak.lock();
      if (!self || error) return;
      self->AddWatch();
      if (self->folder.Fingerprint() != self->fingerprint) self->Settle(self->times.settle);
      self->Rescan();
    });
  }

  ManifestFolder folder;
  const OnFiles on_files;
  const WatcherTimes times;
  asio::posix::stream_descriptor inotify;
  asio::steady_timer settle_timer, rescan_timer;
  std::string fingerprint;
};

FolderWatcher::FolderWatcher(asio::any_io_executor executor, std::string folder, OnFiles on_files,
                             WatcherTimes times)
    : state_(std::make_shared<State>(std::move(executor), std::move(folder), std::move(on_files),
                                     times)) {}

FolderWatcher::~FolderWatcher() = default;

absl::Status FolderWatcher::Start() {
  const absl::Status watching = state_->Watch();
  state_->Rescan();
  // At once, whatever is going on in the folder: the first configuration must not wait for an
  // editor.
  state_->fingerprint = state_->folder.Fingerprint();
  state_->on_files(state_->folder.Read(State::Clock::now()));
  return watching;
}

}  // namespace weft::plane
