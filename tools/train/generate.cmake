# The synthetic click log.
set(generate_folder ${CMAKE_CURRENT_LIST_DIR})
hilomoe_library(hilomoe_generate
  SOURCES ${generate_folder}/generate.cc ${generate_folder}/generate_world.cc
  DEPS absl::status absl::strings hilomoe_model hilomoe_tools_common nlohmann_json::nlohmann_json)
# A fused multiply-add rounds once less: logs would differ between machines.
target_compile_options(hilomoe_generate PRIVATE -ffp-contract=off)
