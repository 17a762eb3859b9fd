# farswap_add_room(folder)
#   Adds the folder if it has a CMakeLists.txt, and looks again when one appears.
function(farswap_add_room room)
	file(GLOB fragment CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${room}/CMakeLists.txt)
	if(fragment)
		add_subdirectory(${CMAKE_SOURCE_DIR}/${room} ${CMAKE_BINARY_DIR}/rooms/${room})
	endif()
endfunction()

# farswap_library(name SOURCES file... [DEPS target...])
#   A room. `name` is its folder with underscores: common_sys, client_backend_remote. A room without sources is a room
#   of headers. DEPS are rooms and PkgConfig::X of FarswapDependencies.cmake; they reach whoever links the room.
function(farswap_library name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
	if(arg_UNPARSED_ARGUMENTS)
		message(FATAL_ERROR "farswap_library(${name}): what is ${arg_UNPARSED_ARGUMENTS}?")
	endif()
	if(arg_SOURCES)
		add_library(${name} STATIC ${arg_SOURCES})
		target_link_libraries(${name} PUBLIC farswap_flags ${arg_DEPS})
	else()
		add_library(${name} INTERFACE)
		target_link_libraries(${name} INTERFACE farswap_flags ${arg_DEPS})
	endif()
endfunction()

# farswap_optimize_as_one(target)
#   A program or shared library that is run for its speed: its rooms call each other for every page, and the compiler is shown
#   all of them when it is linked (docs/benchmarks.md has what that brings). The others are linked faster without.
function(farswap_optimize_as_one target)
	set_target_properties(${target} PROPERTIES FARSWAP_AS_ONE ON)
endfunction()

# farswap_executable(name SOURCES file... [DEPS target...])
#   A program, in bin/ of the build tree and installed.
function(farswap_executable name)
	cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPS")
	if(arg_UNPARSED_ARGUMENTS)
		message(FATAL_ERROR "farswap_executable(${name}): what is ${arg_UNPARSED_ARGUMENTS}?")
	endif()
	add_executable(${name} ${arg_SOURCES})
	target_link_libraries(${name} PRIVATE farswap_flags ${arg_DEPS})
	set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
	install(TARGETS ${name} RUNTIME DESTINATION bin)
endfunction()
