set(generate_test_folder ${CMAKE_CURRENT_LIST_DIR})
hilomoe_test(generate_test LABEL unit SOURCES ${generate_test_folder}/generate_test.cc
  DEPS hilomoe_generate hilomoe_tools_common nlohmann_json::nlohmann_json PkgConfig::XXHASH)
hilomoe_test(generate_memory_test LABEL unit SOURCES ${generate_test_folder}/generate_memory_test.cc
  DEPS hilomoe_generate)
hilomoe_test(generate_random_test LABEL unit SOURCES ${generate_test_folder}/generate_random_test.cc
  DEPS hilomoe_generate)
# As the generator itself is compiled.
target_compile_options(generate_random_test PRIVATE -ffp-contract=off)
