// SPDX-License-Identifier: Apache-2.0
// Which sanitizer a test program is built with, by gcc or clang.
#pragma once

#if defined(__has_feature)
#define WEIR_HAS_FEATURE(name) __has_feature(name)
#else
#define WEIR_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || WEIR_HAS_FEATURE(address_sanitizer)
#define WEIR_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__) || WEIR_HAS_FEATURE(thread_sanitizer)
#define WEIR_THREAD_SANITIZER 1
#endif
