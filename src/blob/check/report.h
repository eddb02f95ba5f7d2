// What a check found, for people and for programs.
#pragma once

#include <string>

#include "blob/check/repair.h"
#include "json/value.h"

namespace varve::blob::check {

// What came of a plan.
struct outcome {
    bool repaired = false;  // all of it was written
    std::size_t changes_written = 0;
    std::string journal;                 // empty: nothing was to be written
    const examination* after = nullptr;  // the repair; null: nothing was repaired
};

// {"loadable":..., "errors":..., "notes":..., "store":{...}, "findings":[...], "changes":[...]}, all as it was before
// a repair, and {"repaired":..., "changes_written":..., "journal":..., "left":[...]}: errors that are left, as
// findings. A finding of more pages or clusters than are listed has "not_listed": how many more.
json::value as_json(const evidence& e, const examination& found, const repair_plan& plan, const outcome& end = {});

// A line for the store, one for each finding (errors only unless `notes`), and what would be or was changed.
std::string in_words(const evidence& e, const examination& found, const repair_plan& plan, bool notes);

// Everything there is in the store, blob by blob.
json::value dump_as_json(const evidence& e, const examination& found);
std::string dump_in_words(const evidence& e, const examination& found);

}  // namespace varve::blob::check
