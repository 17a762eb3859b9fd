# Tests are programs of cmocka, one file each, that begin with the rooms they link:
#
#   /* deps: common_sys common_mem */

# What every test finds in its environment.
set(farswap_test_environment
	"FARSWAP_SOURCE_DIR=${CMAKE_SOURCE_DIR}"
	"FARSWAP_BIN_DIR=${CMAKE_BINARY_DIR}/bin"
	"ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1"
	"UBSAN_OPTIONS=print_stacktrace=1"
	"TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:ignore_noninstrumented_modules=1")

# farswap_test(target source [LABEL label] [TIMEOUT seconds] [DEPS target...])
#   One test program and its entry in ctest, <label>/<name of the source>. Exit status 77: it cannot run here.
function(farswap_test target source)
	cmake_parse_arguments(PARSE_ARGV 2 arg "" "LABEL;TIMEOUT" "DEPS")
	get_filename_component(name ${source} NAME_WE)
	add_executable(${target} ${source})
	target_link_libraries(${target} PRIVATE farswap_flags ${arg_DEPS} PkgConfig::CMOCKA)
	set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/${arg_LABEL})
	add_test(NAME ${arg_LABEL}/${name} COMMAND ${target})
	set_tests_properties(${arg_LABEL}/${name} PROPERTIES
		LABELS ${arg_LABEL}
		TIMEOUT ${arg_TIMEOUT}
		SKIP_RETURN_CODE 77
		ENVIRONMENT "${farswap_test_environment}")
endfunction()

# farswap_unit_test(name [SOURCE file] [TIMEOUT seconds] [DEPS target...])
#   A unit test that needs more than its first line can say.
function(farswap_unit_test name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "SOURCE;TIMEOUT" "DEPS")
	if(NOT arg_SOURCE)
		set(arg_SOURCE ${name}.c)
	endif()
	if(NOT arg_TIMEOUT)
		set(arg_TIMEOUT 180)
	endif()
	farswap_test(${name} ${arg_SOURCE} LABEL unit TIMEOUT ${arg_TIMEOUT} DEPS ${arg_DEPS})
endfunction()

# farswap_add_tests(folder label [TIMEOUT seconds] [DEPS target...])
#   Every test_*.c of the folder. The programs are named test_x for the label "unit" and <label>_test_x for others.
function(farswap_add_tests folder label)
	cmake_parse_arguments(PARSE_ARGV 2 arg "" "TIMEOUT" "DEPS")
	if(NOT arg_TIMEOUT)
		set(arg_TIMEOUT 180)
	endif()
	file(GLOB sources CONFIGURE_DEPENDS ${folder}/test_*.c)
	foreach(source IN LISTS sources)
		# The first line says what to link, so a change of the source may change the build.
		set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
		file(STRINGS ${source} first_line LIMIT_COUNT 1)
		if(NOT first_line MATCHES "^/\\* deps:([a-zA-Z0-9_: ]*)\\*/$")
			message(FATAL_ERROR "${source}:1: the first line must be /* deps: rooms to link */")
		endif()
		string(STRIP "${CMAKE_MATCH_1}" deps)
		string(REGEX REPLACE " +" ";" deps "${deps}")
		get_filename_component(name ${source} NAME_WE)
		if(NOT label STREQUAL "unit")
			string(PREPEND name "${label}_")
		endif()
		farswap_test(${name} ${source} LABEL ${label} TIMEOUT ${arg_TIMEOUT} DEPS ${deps} ${arg_DEPS})
	endforeach()
endfunction()

# farswap_fuzz_target(name SOURCES file... [DEPS target...])
#   A libFuzzer program in bin/ of the build tree, only in a build with FARSWAP_FUZZ.
function(farswap_fuzz_target name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
	if(NOT FARSWAP_FUZZ)
		return()
	endif()
	add_executable(${name} ${arg_SOURCES})
	target_link_libraries(${name} PRIVATE farswap_flags ${arg_DEPS})
	target_link_options(${name} PRIVATE -fsanitize=fuzzer)
	set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# The rules of STYLE.md that a program can check.
function(farswap_add_tidy_test)
	add_test(NAME style/tidy COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/tidy --build ${CMAKE_BINARY_DIR}
		--cc ${CMAKE_C_COMPILER})
	set_tests_properties(style/tidy PROPERTIES LABELS style TIMEOUT 120)
endfunction()
