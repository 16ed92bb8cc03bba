# ROS 2 packages that were installed as wheels name include directories of the machine that built them, which CMake
# rejects. Handed in as CMAKE_PROJECT_INCLUDE by setup.py, this drops what does not exist, once all packages are found.
# A ROS 2 installation from its own packages needs none of it.
function(drop_missing_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      set(existing "")
      foreach(directory IN LISTS directories)
        if(directory MATCHES "^\\$<" OR EXISTS "${directory}")
          list(APPEND existing "${directory}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL drop_missing_includes)
