# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What `cmake --install` writes: libraries, headers, the CMake package and
# zknalloc.pc.  Everything finds everything else relative to itself, so that
# an installed prefix may be moved.
#
# With ZKN_WHEEL the prefix is the Python package itself.  Wheels cannot hold
# symbolic links, and a copy of the library under a second name is a second
# cache in the process that loads both: so exactly one file carries the code,
# its name is its SONAME, and -lzknalloc resolves through a linker script.
# The static library is left out for the same reason.

set_target_properties(zknalloc_preload PROPERTIES EXPORT_NAME preload)

set(libraries zknalloc zknalloc_preload)
if(ZKN_WHEEL)
  set(namelink NAMELINK_SKIP)
  file(CONFIGURE OUTPUT libzknalloc.ld
    CONTENT "INPUT(libzknalloc.so.@PROJECT_VERSION_MAJOR@)\n" @ONLY)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/libzknalloc.ld"
    DESTINATION "${CMAKE_INSTALL_LIBDIR}" RENAME libzknalloc.so)
else()
  set(namelink)
  list(APPEND libraries zknalloc_static)
endif()

install(TARGETS ${libraries} EXPORT zknallocTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" ${namelink}
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
# For `zk-nalloc record` alone, so no build needs to find it.
install(TARGETS zknalloc_record
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY include/ DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/zknalloc")
install(EXPORT zknallocTargets NAMESPACE zknalloc::
  DESTINATION "${package_dir}")
configure_package_config_file(cmake/zknallocConfig.cmake.in
  "${CMAKE_CURRENT_BINARY_DIR}/zknallocConfig.cmake"
  INSTALL_DESTINATION "${package_dir}")
# Before 1.0 a minor version may break what the last one promised.
write_basic_package_version_file(
  "${CMAKE_CURRENT_BINARY_DIR}/zknallocConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${CMAKE_CURRENT_BINARY_DIR}/zknallocConfig.cmake"
  "${CMAKE_CURRENT_BINARY_DIR}/zknallocConfigVersion.cmake"
  DESTINATION "${package_dir}")

# zknalloc.pc names its prefix from its own place; only directories that the
# builder gave as absolute paths stay absolute.
set(pc_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
else()
  file(RELATIVE_PATH up "/${pc_dir}" "/")
  string(REGEX REPLACE "/$" "" up "${up}")
  set(pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(dir IN ITEMS LIBDIR INCLUDEDIR)
  set(path "${CMAKE_INSTALL_${dir}}")
  if(NOT IS_ABSOLUTE "${path}")
    string(PREPEND path "\${prefix}/")
  endif()
  set(pc_${dir} "${path}")
endforeach()
configure_file(zknalloc.pc.in zknalloc.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/zknalloc.pc"
  DESTINATION "${pc_dir}")
