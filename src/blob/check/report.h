// What a check found, for people and for programs.
#pragma once

#include <string>

#include "blob/check/repair.h"
#include "json/value.h"

namespace varve::blob::check {

// {"loadable":..., "errors":..., "notes":..., "store":{...}, "findings":[...], "changes":[...]}
json::value as_json(const evidence& e, const examination& found, const repair_plan& plan);

// A line for the store, one for each finding (errors only unless `notes`), and what would be or was changed.
std::string in_words(const evidence& e, const examination& found, const repair_plan& plan, bool notes);

// Everything there is in the store, blob by blob.
json::value dump_as_json(const evidence& e, const examination& found);
std::string dump_in_words(const evidence& e, const examination& found);

}  // namespace varve::blob::check
