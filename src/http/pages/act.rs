//! What a person does with a machine, by forms. What wipes, switches or ends something asks first,
//! on a page of its own: that works without a script, too. What is done, and who did it, is the same
//! as by the API.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::super::api::{Refusal, actions};
use super::super::error::No;
use super::super::{Web, view};
use super::machine::Choices;
use super::{board, page, text};
use crate::model::{LifeEvent, Mac};
use crate::power::Action;

/// What can be done, as the last part of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    Assign,
    Reinstall,
    Local,
    Rescue,
    Forget,
    On,
    Off,
    Cycle,
}

/// The fields of all forms.
#[derive(Debug, Default, Deserialize)]
pub struct Fields {
    profile: Option<String>,
    name: Option<String>,
}

/// What was written into a field, if anything was.
fn filled(field: Option<String>) -> Option<String> {
    field.map(|text| text.trim().to_string()).filter(|text| !text.is_empty())
}

impl Act {
    /// As its template, the log and the API have it.
    fn word(self) -> &'static str {
        match self {
            Act::Assign => "assign",
            Act::Reinstall => "reinstall",
            Act::Local => "local",
            Act::Rescue => "rescue",
            Act::Forget => "delete",
            Act::On => Action::On.word(),
            Act::Off => Action::Off.word(),
            Act::Cycle => Action::Cycle.word(),
        }
    }

    /// What it makes of a machine's life, or of its power.
    fn deed(self, web: &Web, mac: Mac, fields: Fields) -> Result<Deed, Refusal> {
        let (profile, name) = (filled(fields.profile), filled(fields.name));
        let event = match self {
            Act::Assign => {
                actions::assigns(web, mac, profile.ok_or(Refusal::ProfileWanted)?, name)?
            }
            Act::Reinstall => actions::reinstalls(web, mac, profile)?,
            Act::Local => LifeEvent::Local,
            Act::Rescue => actions::rescues(web, profile)?,
            Act::Forget => actions::forgets(web, mac)?,
            Act::On => return Ok(Deed::Switch(Action::On)),
            Act::Off => return Ok(Deed::Switch(Action::Off)),
            Act::Cycle => return Ok(Deed::Switch(Action::Cycle)),
        };
        Ok(Deed::Step(event))
    }
}

enum Deed {
    Step(LifeEvent),
    Switch(Action),
}

fn asked(web: &Web, req: &HttpRequest) -> Result<(Mac, Act), No> {
    let part = |name| req.match_info().query(name).to_string();
    let mac = super::known(web, &part("who"))?;
    let act = serde_json::from_value(part("act").into()).map_err(|_| No::NoSuchPage)?;
    Ok((mac, act))
}

/// `GET /machines/WHO/ACT`: what will happen, and the button that makes it so.
pub async fn confirm(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let (mac, act) = asked(&web, &req)?;
    if act == Act::Forget {
        // What would be refused is not asked.
        actions::forgets(&web, mac)?;
    }
    let view = view::one(&web, mac).ok_or(No::NoMachine)?;
    let with = json!({
        "act": act.word(), "id": text::id(mac), "name": board::shown(&view), "mac": mac.to_string(),
        "profile": view.profile, "choices": Choices::of(&web, &view),
        "own_name": view.name, "declared": view.declared,
    });
    page(&req, &web, "confirm.html", "fleet", None, with)
}

/// `POST /machines/WHO/ACT`.
pub async fn act(
    req: HttpRequest,
    web: web::Data<Web>,
    fields: Result<web::Form<Fields>, actix_web::Error>,
) -> Result<HttpResponse, No> {
    let fields = fields.map_err(|_| No::Form)?.into_inner();
    let (mac, act) = asked(&web, &req)?;
    match act.deed(&web, mac, fields)? {
        Deed::Step(event) => actions::step(&req, &web, mac, act.word(), event).await?,
        Deed::Switch(action) => {
            let said = actions::switch(&req, &web, mac, action).await?;
            let view = view::one(&web, mac).ok_or(No::NoMachine)?;
            let with = json!({ "id": text::id(mac), "name": board::shown(&view), "said": said });
            return page(&req, &web, "said.html", "fleet", None, with);
        }
    }
    web.pages.changed();
    let to = match act {
        Act::Forget => "/".to_string(),
        _ => format!("/machines/{}", text::id(mac)),
    };
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish())
}
