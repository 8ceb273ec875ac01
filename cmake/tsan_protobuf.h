// SPDX-License-Identifier: Apache-2.0
// Under the thread sanitizer, put before every file that uses protobuf (WeftTargets.cmake).
// google/protobuf/map_field.h gives its classes two members more if the compiler says
// __SANITIZE_THREAD__; Debian's library was built without, so messages with map fields would have
// two layouts in one program and crash in ByteSizeLong.
#pragma push_macro("__SANITIZE_THREAD__")
#undef __SANITIZE_THREAD__
#include <google/protobuf/map_field.h>
#pragma pop_macro("__SANITIZE_THREAD__")
