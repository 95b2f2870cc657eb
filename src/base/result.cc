#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace ringmaster::base {

std::string_view name(Code code) {
  switch (code) {
    case Code::ok: return "ok";
    case Code::cancelled: return "cancelled";
    case Code::timeout: return "timeout";
    case Code::closed: return "closed";
    case Code::reset: return "reset";
    case Code::refused: return "refused";
    case Code::unreachable: return "unreachable";
    case Code::full: return "full";
    case Code::exited: return "exited";
    case Code::invalid: return "invalid";
    case Code::too_large: return "too_large";
    case Code::exists: return "exists";
    case Code::conflict: return "conflict";
    case Code::not_found: return "not_found";
    case Code::denied: return "denied";
    case Code::disk_full: return "disk_full";
    case Code::unavailable: return "unavailable";
    case Code::internal: return "internal";
  }
  return "unknown";
}

std::string describe(const Error& error) { return error.detail.empty() ? std::string(name(error.code)) : error.detail; }

static Code code_of(int error) {
  switch (error) {
    case ECONNREFUSED:
    case ELOOP:                         // a link where a Unix socket should be is not followed
    case ENOENT: return Code::refused;  // a Unix socket whose file is gone refuses just as well
    case ECONNRESET:
    case EPIPE: return Code::reset;
    case ETIMEDOUT: return Code::timeout;
    case EAGAIN:
    case EADDRNOTAVAIL:  // no port is left for another connection
    case EMFILE:
    case ENFILE:
    case ENOBUFS: return Code::full;
    case EHOSTUNREACH:
    case ENETUNREACH: return Code::unreachable;
    case EADDRINUSE: return Code::exists;
    case EACCES:
    case EPERM: return Code::denied;
    case ENOSPC:
    case EDQUOT: return Code::disk_full;
    case ECANCELED: return Code::cancelled;
    default: return Code::internal;
  }
}

Error from_errno(int error, std::string_view what) {
  std::string detail(what);
  detail += ": ";
  detail += std::strerror(error);  // NOLINT(concurrency-mt-unsafe): glibc's is thread-safe for known numbers
  return Error{code_of(error), Source::us, std::move(detail)};
}

}  // namespace ringmaster::base
