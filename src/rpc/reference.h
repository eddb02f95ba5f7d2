// Texts made from the schemas of methods: what --help says about a parameter, and the reference page.
#pragma once

#include <string>

#include "rpc/registry.h"

namespace varve::rpc {

// "UINT32", "NAME|NAME" of an enum, "JSON" of arrays and objects.
std::string type_text(const field_schema& parameter);
// Description, default and limits in one line: "Bytes per block (default 512; one of 512, 4096)".
std::string about(const field_schema& parameter);
// Every method with its parameters, for programs.
json::value schema_of(const registry& methods);
// docs/rpc.md: every method with its parameters, by name.
std::string reference_page(const registry& methods);

}  // namespace varve::rpc
