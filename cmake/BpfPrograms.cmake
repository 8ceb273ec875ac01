# SPDX-License-Identifier: Apache-2.0
# Compiles every bpf/*/NAME.bpf.c with clang into NAME.bpf.o and embeds it: `bpf_objects` is a library whose symbols
# weft_bpf_NAME and weft_bpf_NAME_end bracket the object's bytes (control/bpf/objects.h declares them).
find_program(WEFT_BPF_CLANG NAMES clang-19 REQUIRED)
find_program(WEFT_BPF_STRIP NAMES llvm-strip-19 REQUIRED)

function(weft_bpf_objects target)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.bpf.c)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS *.h ${CMAKE_SOURCE_DIR}/bpf/*.h)
  set(assembly "")
  set(objects "")
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WLE)
    string(REPLACE ".bpf" "" name ${name})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${WEFT_BPF_CLANG} -target bpf -mcpu=v3 -O2 -g -std=gnu11 -Wall -Wextra -Werror -Wno-unused-function -Wno-missing-field-initializers
              -D__TARGET_ARCH_x86 -I${CMAKE_SOURCE_DIR} -isystem ${WEFT_DEPS}/uapi -isystem ${WEFT_DEPS}/include
              -isystem /usr/include/${CMAKE_LIBRARY_ARCHITECTURE} -c ${source} -o ${object}
      COMMAND ${WEFT_BPF_STRIP} -g ${object}
      DEPENDS ${source} ${headers} COMMENT "BPF ${name}" VERBATIM)
    list(APPEND objects ${object})
    string(APPEND assembly "\t.global weft_bpf_${name}\n\t.global weft_bpf_${name}_end\n\t.balign 8\nweft_bpf_${name}:\n\t.incbin \"${object}\"\nweft_bpf_${name}_end:\n")
  endforeach()
  set(embed ${CMAKE_CURRENT_BINARY_DIR}/objects.S)
  file(CONFIGURE OUTPUT ${embed} CONTENT "\t.section .rodata\n@assembly@\t.section .note.GNU-stack,\"\",@progbits\n" @ONLY)
  set_source_files_properties(${embed} PROPERTIES OBJECT_DEPENDS "${objects}")
  if(objects)
    add_library(${target} STATIC ${embed})
  else()
    add_library(${target} INTERFACE)
  endif()
endfunction()
