// SPDX-License-Identifier: Apache-2.0
#include "control/host/interface_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include <absl/strings/str_cat.h>

namespace weir {
namespace {

absl::Status cannot_lock(const std::string& interface, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot lock ", interface, ": ", why));
}

// Makes it where it is missing. Whoever else could write there could keep weir from starting;
// `excuse`: with this bit nobody can replace what is another's.
absl::Status check_directory(const std::string& interface, const std::string& directory,
                             mode_t mode, mode_t excuse) {
  if (::mkdir(directory.c_str(), mode) != 0 && errno != EEXIST) {
    return cannot_lock(interface, absl::StrCat("there is no ", directory, " (",
                                               std::generic_category().message(errno),
                                               "): create it for the user that weir runs as"));
  }
  struct stat status {};
  const bool own = ::lstat(directory.c_str(), &status) == 0 && S_ISDIR(status.st_mode) &&
                   (status.st_uid == ::geteuid() || status.st_uid == 0);
  const bool closed = (status.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (status.st_mode & excuse) != 0;
  if (own && closed) return absl::OkStatus();
  return cannot_lock(interface, absl::StrCat(directory,
                                             " is open to others: it has to be a directory of "
                                             "root's, or of the user that weir runs as, alone"));
}

bool is_at(const std::string& path, int file) {
  struct stat there {};
  struct stat here {};
  return ::lstat(path.c_str(), &there) == 0 && ::fstat(file, &here) == 0 &&
         there.st_ino == here.st_ino && there.st_dev == here.st_dev;
}

}  // namespace

absl::StatusOr<InterfaceLock> InterfaceLock::take(const std::string& interface, int index,
                                                  const std::string& directory) {
  constexpr mode_t kOthersRead = 0755;
  constexpr mode_t kOwnerAlone = 0700;
  const std::string parent = std::filesystem::path(directory).parent_path();
  absl::Status status = check_directory(interface, parent, kOthersRead, S_ISVTX);
  if (status.ok()) status = check_directory(interface, directory, kOwnerAlone, 0);
  if (!status.ok()) return status;
  struct stat network_namespace {};
  if (::stat("/proc/thread-self/ns/net", &network_namespace) != 0) {
    return cannot_lock(interface, "/proc is not mounted");
  }
  std::string path = absl::StrCat(directory, "/net-", network_namespace.st_ino, "-if-", index);
  for (;;) {
    constexpr mode_t kOwnerOnly = 0600;
    Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, kOwnerOnly));
    if (!file.is_open()) {
      return cannot_lock(interface, absl::StrCat("cannot open ", path, " (",
                                                 std::generic_category().message(errno), ")"));
    }
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      return absl::AlreadyExistsError(absl::StrCat(
          "another weir uses ", interface, ": stop that one or give this one another interface"));
    }
    // Whoever had the lock before may have removed the file in between.
    if (is_at(path, file.get())) return InterfaceLock(std::move(path), std::move(file));
  }
}

InterfaceLock::~InterfaceLock() {
  if (file_.is_open()) ::unlink(path_.c_str());
}

}  // namespace weir
