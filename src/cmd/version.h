#pragma once

namespace ringmaster::cmd {
inline constexpr const char* kVersion = RINGMASTER_VERSION;
}  // namespace ringmaster::cmd
