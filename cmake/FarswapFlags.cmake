# How every target is compiled: the interface library farswap_flags.
#
# FARSWAP_WERROR         warnings are errors (ON)
# FARSWAP_SANITIZE       a list for -fsanitize=, such as "address;undefined" or "thread"
# FARSWAP_FUZZ           instrument everything for libFuzzer and build tests/fuzz (clang only)
# FARSWAP_THREAD_SAFETY  clang's -Wthread-safety

include(CheckPIESupported)

option(FARSWAP_WERROR "Treat warnings as errors" ON)
option(FARSWAP_FUZZ "Build the libFuzzer targets (clang only)" OFF)
option(FARSWAP_THREAD_SAFETY "Check lock annotations (clang only)" OFF)
set(FARSWAP_SANITIZE "" CACHE STRING "Sanitizers, separated by semicolons")

if(NOT CMAKE_BUILD_TYPE)
	set(CMAKE_BUILD_TYPE Release CACHE STRING "Release or Debug" FORCE)
endif()
if((FARSWAP_FUZZ OR FARSWAP_THREAD_SAFETY) AND NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
	message(FATAL_ERROR "FARSWAP_FUZZ and FARSWAP_THREAD_SAFETY need clang (CMAKE_C_COMPILER=clang)")
endif()

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# No -march: the binaries run on any x86-64 or arm64, and ISA-L picks its own instructions. Assertions stay in the
# release: for a swap device, stopping is better than a page that belongs to somebody else.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g3")

check_pie_supported(LANGUAGES C)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(farswap_flags INTERFACE)
target_include_directories(farswap_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(farswap_flags INTERFACE _GNU_SOURCE FARSWAP_VERSION="${PROJECT_VERSION}")
# The frame pointer costs next to nothing and makes perf's call graphs right.
target_compile_options(farswap_flags INTERFACE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
	-Wpointer-arith -Wvla -Wwrite-strings -Wundef -Wformat=2 -fno-omit-frame-pointer -fno-common)
if(FARSWAP_WERROR)
	target_compile_options(farswap_flags INTERFACE -Werror)
endif()
if(FARSWAP_THREAD_SAFETY)
	target_compile_options(farswap_flags INTERFACE -Wthread-safety)
endif()

# A list would be cut into separate flags: -fsanitize takes commas.
list(JOIN FARSWAP_SANITIZE "," farswap_sanitizers)
if(FARSWAP_FUZZ)
	string(JOIN "," farswap_sanitizers ${farswap_sanitizers} fuzzer-no-link)
endif()
if(farswap_sanitizers)
	target_compile_options(farswap_flags INTERFACE -fsanitize=${farswap_sanitizers} -fno-sanitize-recover=all)
	target_link_options(farswap_flags INTERFACE -fsanitize=${farswap_sanitizers})
else()
	target_compile_options(farswap_flags INTERFACE -fstack-protector-strong
		$<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
	target_link_options(farswap_flags INTERFACE LINKER:-z,relro LINKER:-z,now)
endif()

# Objects that can be linked as they are, and are for all but those of farswap_optimize_as_one.
if(CMAKE_C_COMPILER_ID STREQUAL GNU AND CMAKE_BUILD_TYPE STREQUAL Release AND NOT farswap_sanitizers)
	target_compile_options(farswap_flags INTERFACE -flto=auto -ffat-lto-objects)
	target_link_options(farswap_flags INTERFACE
		$<IF:$<BOOL:$<TARGET_PROPERTY:FARSWAP_AS_ONE>>,-flto=auto,-fno-lto>)
endif()

find_package(Threads REQUIRED)
target_link_libraries(farswap_flags INTERFACE Threads::Threads)
