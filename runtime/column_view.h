// Columns as they lie in a file or a message -> views. The one place where the packed format is read.
#ifndef HILOMOE_RUNTIME_COLUMN_VIEW_H_
#define HILOMOE_RUNTIME_COLUMN_VIEW_H_

#include <vector>

#include "google/protobuf/repeated_field.h"
#include "hilomoe/v1/column.pb.h"
#include "runtime/request_view.h"

namespace hilomoe {

// Appends one view per column; no value is copied, the messages must outlive the views.
void AppendColumnViews(const google::protobuf::RepeatedPtrField<v1::Column>& columns, std::vector<ColumnView>* views);

}  // namespace hilomoe

#endif  // HILOMOE_RUNTIME_COLUMN_VIEW_H_
