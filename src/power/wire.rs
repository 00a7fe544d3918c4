//! Magic packets, and what of Redfish's JSON (DMTF DSP0266, DSP0268) is ours to read and write.

use serde_json::{Value, json};

use crate::model::Mac;
use crate::model::event::plain;

/// Characters of what a BMC says that are shown.
const MESSAGE: usize = 300;
/// Values of a list that are looked at.
const LIST: usize = 64;

/// AMD's Magic Packet: six bytes of ones, then the address sixteen times.
pub fn magic(mac: Mac) -> [u8; 102] {
    let mut packet = [0xff; 102];
    for place in packet[6..].chunks_exact_mut(6) {
        place.copy_from_slice(&mac.0);
    }
    packet
}

/// What a ComputerSystem says of itself, as far as it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// `PowerState`; not known while it changes.
    pub on: Option<bool>,
    /// Where orders go: a path of the same BMC.
    pub reset: Option<String>,
    /// The orders it takes, where it says so.
    pub resets: Option<Vec<String>>,
    /// Where it says so instead (`@Redfish.ActionInfo`).
    pub action_info: Option<String>,
    /// The boot sources it takes, where it says so.
    pub sources: Option<Vec<String>>,
    /// `@odata.etag`.
    pub etag: Option<String>,
}

fn word(v: &Value) -> Option<String> {
    v.as_str().map(str::to_string)
}

fn words(v: &Value) -> Option<Vec<String>> {
    v.as_array().map(|all| all.iter().take(LIST).filter_map(word).collect())
}

impl System {
    /// `None`: it is no ComputerSystem.
    pub fn read(json: &Value) -> Option<System> {
        let kind = json["@odata.type"].as_str().unwrap_or_default();
        if !kind.starts_with("#ComputerSystem.") {
            return None;
        }
        let reset = &json["Actions"]["#ComputerSystem.Reset"];
        Some(System {
            on: match json["PowerState"].as_str() {
                Some("On") => Some(true),
                Some("Off") => Some(false),
                _ => None,
            },
            reset: word(&reset["target"]),
            resets: words(&reset["ResetType@Redfish.AllowableValues"]),
            action_info: word(&reset["@Redfish.ActionInfo"]),
            sources: words(&json["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"]),
            etag: word(&json["@odata.etag"]),
        })
    }
}

/// The reset types of an `ActionInfo` (DSP0266, "Action info").
pub fn resets(action_info: &Value) -> Option<Vec<String>> {
    let all = action_info["Parameters"].as_array()?;
    words(&all.iter().find(|p| p["Name"] == "ResetType")?["AllowableValues"])
}

/// The members of a collection, for a person whose URL names none of them.
pub fn members(collection: &Value) -> Option<String> {
    let all = collection["Members"].as_array()?;
    let paths = all.iter().take(8).filter_map(|m| m["@odata.id"].as_str());
    let paths: Vec<&str> = paths.collect();
    (!paths.is_empty()).then(|| plain(&paths.join(", "), MESSAGE))
}

/// What is wrong, in the BMC's own words (DSP0266, "Error responses").
pub fn message(error: &Value) -> String {
    let error = &error["error"];
    let told = error["@Message.ExtendedInfo"]
        .as_array()
        .and_then(|all| all.iter().find_map(|m| m["Message"].as_str()));
    plain(told.or(error["message"].as_str()).unwrap_or_default(), MESSAGE)
}

pub fn reset(kind: &str) -> Value {
    json!({ "ResetType": kind })
}

/// The next start comes from `source`, that one alone.
pub fn boot_once(source: &str) -> Value {
    json!({ "Boot": {
        "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideTarget": source,
    } })
}

pub fn login(user: &str, password: &str) -> Value {
    json!({ "UserName": user, "Password": password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_packet_to_the_byte() {
        let packet = magic("52:54:00:12:34:56".parse().unwrap());
        let hex: String = packet.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ffffffffffff".to_string() + &"525400123456".repeat(16));
    }

    #[test]
    fn a_system_is_read_as_far_as_it_goes() {
        let json = json!({
            "@odata.type": "#ComputerSystem.v1_13_0.ComputerSystem",
            "@odata.etag": "W/\"1\"",
            "PowerState": "PoweringOn",
            "Actions": { "#ComputerSystem.Reset": {
                "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                "@Redfish.ActionInfo": "/redfish/v1/Systems/1/ResetActionInfo",
            } },
        });
        let system = System::read(&json).unwrap();
        assert_eq!((system.on, system.resets, system.sources), (None, None, None));
        assert_eq!(system.etag.as_deref(), Some("W/\"1\""));
        assert_eq!(system.action_info.as_deref(), Some("/redfish/v1/Systems/1/ResetActionInfo"));
        for other in [json!({}), json!([]), json!({ "@odata.type": "#Chassis.v1_0_0.Chassis" })] {
            assert_eq!(System::read(&other), None, "{other}");
        }
        let info = json!({ "Parameters": [
            { "Name": "Other" },
            { "Name": "ResetType", "AllowableValues": ["On", 1, "ForceOff"] },
        ] });
        assert_eq!(resets(&info).unwrap(), ["On", "ForceOff"]);
    }

    #[test]
    fn what_a_bmc_says_moves_no_cursor() {
        let error = json!({ "error": { "message": "general", "@Message.ExtendedInfo": [
            { "MessageId": "x" }, { "Message": "not\u{1b}[2J now" } ] } });
        assert_eq!(message(&error), "not?[2J now");
        assert_eq!(message(&json!({ "error": { "message": "general" } })), "general");
        assert_eq!(message(&Value::Null), "");
    }
}
