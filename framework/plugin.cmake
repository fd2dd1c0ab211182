# How a folder becomes a plugin: a module that exports one symbol and has no search path.

file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/include/qfw/plugin.h major REGEX "define QFW_ABI_MAJOR")
string(REGEX MATCH "[0-9]+$" major "${major}")
set(QFW_PLUGIN_FOLDER qfw/plugins/${major})

# qfw_plugin_module(TARGET): the flags that every plugin is built with, those of the tests included.
function(qfw_plugin_module target)
    set_target_properties(${target} PROPERTIES PREFIX "")
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/framework/include)
    target_compile_options(${target} PRIVATE -fvisibility=hidden)
    target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL)
    # clang keeps the sanitizers' runtime in the executable: there a module must leave it undefined.
    if(NOT (QFW_DEV AND CMAKE_C_COMPILER_ID MATCHES Clang))
        target_link_options(${target} PRIVATE -Wl,-z,defs)
    endif()
    target_link_libraries(${target} PRIVATE m)
endfunction()

# qfw_add_plugin(KIND NAME [libraries...]): libqfw_KIND_NAME.so from the sources of the folder NAME.
# It lies beside the command, so that both run in place.
function(qfw_add_plugin kind name)
    file(GLOB sources CONFIGURE_DEPENDS ${name}/*.c)
    if(NOT sources)
        qfw_no_plugin(${kind} ${name} "no source in the tree")
        return()
    endif()
    set(target qfw_${kind}_${name})
    add_library(${target} MODULE ${sources})
    qfw_plugin_module(${target})
    set_target_properties(${target} PROPERTIES OUTPUT_NAME libqfw_${kind}_${name}
        LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
    if(NOT QFW_DEV)
        target_compile_options(${target} PRIVATE -O3)
    endif()
    target_link_libraries(${target} PRIVATE ${ARGN})
    install(TARGETS ${target} DESTINATION ${CMAKE_INSTALL_LIBDIR}/${QFW_PLUGIN_FOLDER})
    set_property(GLOBAL APPEND PROPERTY QFW_PLUGINS "${kind} ${name}")
endfunction()

# qfw_no_plugin(KIND NAME WHY): one line of the summary, for a plugin whose needs are not met here.
function(qfw_no_plugin kind name why)
    set_property(GLOBAL APPEND PROPERTY QFW_PLUGINS_ABSENT "${kind} ${name} (${why})")
endfunction()
