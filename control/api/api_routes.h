// SPDX-License-Identifier: Apache-2.0
// The API's resources: what each request does to the LiveModel. No sockets here.
//
//   GET POST DELETE  /v1/services                          all; add one; remove all
//   GET PUT DELETE   /v1/services/SERVICE                  SERVICE: tcp/10.0.0.1/80, fwmark/ipv4/7
//   POST             /v1/services/SERVICE/zero             its statistics start at zero
//   POST             /v1/services/SERVICE/servers          add a real server
//   PUT DELETE       /v1/services/SERVICE/servers/ADDRESS/PORT
//   PUT              /v1/services/SERVICE/options/NAME     {"name", "value"}
//   POST             /v1/changes                           {"changes": [...]}: all or nothing, or
//                                                          with "each_alone": true each by itself
//   POST             /v1/services/SERVICE/local-addresses  {"first", "last"}; for FullNAT
//   DELETE           /v1/services/SERVICE/local-addresses/FIRST/LAST
//   GET POST         /v1/local-addresses                   of all services; add for all
//   DELETE           /v1/local-addresses/FIRST/LAST
//   GET POST         /v1/mark-rules                        in order; add as the last one
//   POST DELETE      /v1/mark-rules/NUMBER                 add before it; delete it
//   POST             /v1/zero                              the statistics of all services
//   GET              /v1/connections                       one JSON object a line
//   GET PUT          /v1/timeouts
//   GET POST         /v1/sync-daemons     DELETE  /v1/sync-daemons/ROLE
//   GET              /v1/workers
//   GET              /v1/counters
//   GET              /v1/loop             how long the control thread's jobs take
//   GET              /v1/settings         PUT     /v1/settings/NAME
//
// Thread: the control thread only.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include <absl/status/statusor.h>

#include "control/api/api_json.h"

#include "control/live/live_model.h"
#include "control/loop/job_histogram.h"

namespace weir {

struct ApiRequest {
  std::string method;  // "GET"
  std::string path;    // without a query
  std::string body;
};

struct ApiReply {
  int http_status = 200;
  std::string content_type = "application/json";
  // The whole body, or, where `next_slice` is set, nothing: long listings are made in slices of
  // well under a millisecond. Each call appends one; false: that was the last.
  std::string body;
  std::function<bool(std::string& text)> next_slice;
};

using Respond = std::function<void(ApiReply)>;

// What the API shows and changes. All of it outlives the API.
struct ApiSources {
  LiveModel& model;
  const JobHistogram& jobs;  // of the control thread
};

// Calls `respond` once, perhaps before it returns, perhaps when the workers have what was changed.
void answer(const ApiSources& sources, const ApiRequest& request, Respond respond);

// Requests of this kind may be long: how long, and the reading of their body, by any thread.
inline constexpr std::size_t kLongestChanges = std::size_t{64} << 20;
bool is_changes_request(const std::string& method, const std::string& path);
absl::StatusOr<ChangesRequest> read_changes(const std::string& body);
void answer_changes(LiveModel& model, absl::StatusOr<ChangesRequest> request, Respond respond);

}  // namespace weir
