// SPDX-License-Identifier: Apache-2.0
// Coroutines as Weft uses them: Boost.Asio's awaitable on one thread's io_context. The rules are in
// CONTRIBUTING.md
// ("Coroutines"): named functions only, parameters by value or references whose owner awaits the
// call, one co_await a statement.
#pragma once
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>

namespace weft {

namespace asio = boost::asio;

template <typename T = void>
using Task = asio::awaitable<T>;

// I/O errors are values: `auto [error, n] = co_await socket.async_wait(..., kAsTuple);`
inline constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

}  // namespace weft
