// A prepared SQLite statement, with its values bound and read in order. Errors are SQLite's codes, for the caller to judge.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace ringmaster::dispatch {

class Statement {
 public:
  Statement() = default;
  Statement(sqlite3* database, std::string_view sql) {
    code_ = sqlite3_prepare_v3(database, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement_, nullptr);
  }
  Statement(Statement&& other) noexcept : statement_(std::exchange(other.statement_, nullptr)), code_(other.code_) {}
  Statement& operator=(Statement&& other) noexcept {
    std::swap(statement_, other.statement_);
    code_ = other.code_;
    return *this;
  }
  ~Statement() { sqlite3_finalize(statement_); }

  int code() const { return code_; }  // of preparing it

  // Text stays the caller's until reset().
  Statement& bind(std::string_view text) {
    sqlite3_bind_text(statement_, ++bound_, text.data() == nullptr ? "" : text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
    return *this;
  }
  Statement& bind(std::int64_t number) {
    sqlite3_bind_int64(statement_, ++bound_, number);
    return *this;
  }
  // Bytes; likewise. None at all is NULL.
  Statement& bind_blob(std::string_view bytes) {
    sqlite3_bind_blob(statement_, ++bound_, bytes.empty() ? nullptr : bytes.data(), static_cast<int>(bytes.size()), SQLITE_STATIC);
    return *this;
  }
  Statement& bind_null() {
    sqlite3_bind_null(statement_, ++bound_);
    return *this;
  }
  // Empty text as NULL: partial indexes leave it out.
  Statement& bind_or_null(std::string_view text) { return text.empty() ? bind_null() : bind(text); }

  // SQLITE_ROW, SQLITE_DONE or an error.
  int step() {
    column_ = 0;
    return sqlite3_step(statement_);
  }
  void reset() {
    sqlite3_reset(statement_);
    bound_ = 0;
  }

  std::int64_t number() { return sqlite3_column_int64(statement_, column_++); }
  std::string text() {
    const int column = column_++;
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    return bytes == nullptr ? std::string() : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  }

 private:
  sqlite3_stmt* statement_ = nullptr;
  int code_ = SQLITE_OK;
  int bound_ = 0;
  int column_ = 0;
};

}  // namespace ringmaster::dispatch
