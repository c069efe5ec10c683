// SPDX-License-Identifier: Apache-2.0
#include "control/model/settings_table.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <cstdint>

namespace weir {
namespace {

// A setting: how it is read from, and written to, Settings.
struct SettingRow {
  const char* name;
  const char* help;
  std::uint32_t most;
  std::uint32_t (*get)(const Settings&);
  void (*set)(Settings&, std::uint32_t);
};

constexpr std::uint32_t kLongestExpiration = 365U * 24 * 60 * 60;

constexpr SettingRow kSettingRows[] = {
    {"conn_reuse_mode",
     "a SYN on a connection in TIME_WAIT or CLOSE starts a new one (1; 2: FIN_WAIT too, 0: never)",
     3, [](const Settings& s) { return s.conn_reuse_mode; },
     [](Settings& s, std::uint32_t v) { s.conn_reuse_mode = v; }},
    {"expire_nodest_conn",
     "packets of a removed real server's connections: 0 dropped, 1 scheduled anew", 1,
     [](const Settings& s) { return std::uint32_t{s.expire_nodest_conn}; },
     [](Settings& s, std::uint32_t v) { s.expire_nodest_conn = v != 0; }},
    {"expire_quiescent_template",
     "1: a persistent client of a real server of weight 0 is scheduled anew", 1,
     [](const Settings& s) { return std::uint32_t{s.expire_quiescent_template}; },
     [](Settings& s, std::uint32_t v) { s.expire_quiescent_template = v != 0; }},
    {"drop_entry",
     "half-open and idle connections are given up for room: 0 never, 1 or 2 while a table is "
     "nearly full, 3 always",
     3, [](const Settings& s) { return s.drop_entry; },
     [](Settings& s, std::uint32_t v) { s.drop_entry = v; }},
    {"udp_unanswered_timeout",
     "seconds that a nat or fullnat UDP connection without an answer lasts; 0: as long as others",
     kLongestExpiration, [](const Settings& s) { return s.udp_unanswered_timeout; },
     [](Settings& s, std::uint32_t v) { s.udp_unanswered_timeout = v; }},
    {"lblc_expiration", "seconds that lblc remembers a destination that nobody asks for",
     kLongestExpiration, [](const Settings& s) { return s.lblc_expiration; },
     [](Settings& s, std::uint32_t v) { s.lblc_expiration = v; }},
    {"lblcr_expiration", "seconds after which lblcr takes the most loaded server out of a set",
     kLongestExpiration, [](const Settings& s) { return s.lblcr_expiration; },
     [](Settings& s, std::uint32_t v) { s.lblcr_expiration = v; }},
    {"cache_bypass",
     "1: packets of a fwmark service without a real server go on to where they are addressed", 1,
     [](const Settings& s) { return std::uint32_t{s.cache_bypass}; },
     [](Settings& s, std::uint32_t v) { s.cache_bypass = v != 0; }},
    {"pmtu_disc",
     "1: a packet too big that must not be fragmented is answered; 0: it is fragmented", 1,
     [](const Settings& s) { return std::uint32_t{s.pmtu_disc}; },
     [](Settings& s, std::uint32_t v) { s.pmtu_disc = v != 0; }},
    {"backup_only",
     "1: what another director that is a dr real server here sends is this host's; 0: or another "
     "real server's",
     1, [](const Settings& s) { return std::uint32_t{s.backup_only}; },
     [](Settings& s, std::uint32_t v) { s.backup_only = v != 0; }},
    {"nat_icmp_send", "1: a real server's packet of no connection is answered: port unreachable", 1,
     [](const Settings& s) { return std::uint32_t{s.nat_icmp_send}; },
     [](Settings& s, std::uint32_t v) { s.nat_icmp_send = v != 0; }},
    {"sloppy_tcp", "1: any TCP segment but a RST opens a connection, not only a SYN", 1,
     [](const Settings& s) { return std::uint32_t{s.sloppy_tcp}; },
     [](Settings& s, std::uint32_t v) { s.sloppy_tcp = v != 0; }},
    {"sloppy_sctp", "1: any SCTP packet but an ABORT opens a connection, not only an INIT", 1,
     [](const Settings& s) { return std::uint32_t{s.sloppy_sctp}; },
     [](Settings& s, std::uint32_t v) { s.sloppy_sctp = v != 0; }},
};

constexpr std::size_t kEstablished = static_cast<std::size_t>(TcpState::established);
constexpr std::size_t kFinWait = static_cast<std::size_t>(TcpState::fin_wait);

}  // namespace

std::vector<SettingListing> list_settings(const Settings& settings) {
  std::vector<SettingListing> rows;
  for (const SettingRow& row : kSettingRows) {
    rows.push_back({row.name, absl::StrCat(row.get(settings)), row.help});
  }
  return rows;
}

absl::Status set_setting(Settings& settings, const std::string& name, const std::string& value) {
  std::string known;
  for (const SettingRow& row : kSettingRows) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name);
    if (name != row.name) continue;
    std::uint32_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number > row.most) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " takes a number from 0 to ", row.most, ", not '", value, "'"));
    }
    row.set(settings, number);
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("there is no setting '", name, "'; the settings are: ", known));
}

IpvsTimeouts timeouts_of(const Settings& settings) {
  return {settings.tcp_timeouts[kEstablished], settings.tcp_timeouts[kFinWait],
          settings.udp_timeout};
}

void set_timeouts(Settings& settings, const IpvsTimeouts& timeouts) {
  if (timeouts.tcp != 0) settings.tcp_timeouts[kEstablished] = timeouts.tcp;
  if (timeouts.tcp_fin != 0) settings.tcp_timeouts[kFinWait] = timeouts.tcp_fin;
  if (timeouts.udp != 0) settings.udp_timeout = timeouts.udp;
}

}  // namespace weir
