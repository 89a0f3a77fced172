//! The directory of routes and areas, by which the SDKs find everything else.
//!
//! It lists what the emulator answers, under the ids of the real service. The list of routes
//! is for everybody, the areas are for members.

use serde_json::{Value, json};

use super::access::Caller;
use super::errors;
use crate::call::{Answer, Call, json as answer_json};

/// OPTIONS of an organization (or of the host of profiles): the routes.
pub(super) fn routes() -> Answer {
    let value: Vec<Value> = ROUTES.iter().map(Route::to_json).collect();
    answer_json(200, &json!({ "count": value.len(), "value": value }))
}

pub(super) fn areas(caller: &Caller) -> Answer {
    let value: Vec<Value> = AREAS.iter().map(|area| area_json(*area, &caller.organization.name)).collect();
    answer_json(200, &json!({ "count": value.len(), "value": value }))
}

pub(super) fn area(caller: &Caller, id: &str) -> Answer {
    match AREAS.iter().find(|(known, _)| known.eq_ignore_ascii_case(id)) {
        Some(area) => answer_json(200, &area_json(*area, &caller.organization.name)),
        None => errors::no_resource(),
    }
}

/// The host of profiles knows its own area.
pub(super) fn answer_profile_host(call: &Call) -> Option<Answer> {
    match (call.method.as_str(), call.segments().as_slice()) {
        ("OPTIONS", ["_apis"]) => Some(routes()),
        ("GET", ["_apis", "ResourceAreas", id]) if id.eq_ignore_ascii_case(PROFILE_AREA.0) => {
            Some(answer_json(200, &area_json(PROFILE_AREA, "")))
        }
        _ => None,
    }
}

fn area_json((id, name): (&str, &str), organization: &str) -> Value {
    let location = if id == PROFILE_AREA.0 {
        "https://app.vssps.visualstudio.com/".to_owned()
    } else {
        format!("https://dev.azure.com/{organization}/")
    };
    json!({ "id": id, "name": name, "locationUrl": location })
}

struct Route {
    id: &'static str,
    area: &'static str,
    resource: &'static str,
    template: &'static str,
}

impl Route {
    fn to_json(&self) -> Value {
        json!({
            "id": self.id, "area": self.area, "resourceName": self.resource,
            "routeTemplate": self.template, "resourceVersion": 4,
            "minVersion": 1.0, "maxVersion": 7.2, "releasedVersion": "7.1",
        })
    }
}

const ROUTES: &[Route] = &[
    Route {
        id: "00d9565f-ed9c-4a06-9a50-00e7896ccab4",
        area: "Location",
        resource: "ConnectionData",
        template: "_apis/{resource}",
    },
    Route {
        id: "e81700f7-3be2-46de-8624-2eb35882fcaa",
        area: "Location",
        resource: "ResourceAreas",
        template: "_apis/{resource}/{areaId}",
    },
    Route {
        id: "603fe2ac-9723-48b9-88ad-09305aa6c6e1",
        area: "core",
        resource: "projects",
        template: "_apis/{resource}/{*projectId}",
    },
    Route {
        id: "225f7195-f9c7-4d14-ab28-a83f7ff77e1f",
        area: "git",
        resource: "repositories",
        template: "{project}/_apis/{area}/{resource}/{repositoryId}",
    },
    Route {
        id: "2d874a60-a811-4f62-9c9f-963a6ea0a55b",
        area: "git",
        resource: "refs",
        template: "{project}/_apis/{area}/repositories/{repositoryId}/{resource}",
    },
    Route {
        id: "dd3b8bd6-c7fc-4cbd-929a-933d9c011c9d",
        area: "Security",
        resource: "Permissions",
        template: "_apis/{resource}/{securityNamespaceId}/{permissions}",
    },
    Route {
        id: "cf1faa59-1b63-4448-bf04-13d981a46f5d",
        area: "Security",
        resource: "PermissionEvaluationBatch",
        template: "_apis/{area}/{resource}",
    },
    Route {
        id: "f83735dc-483f-4238-a291-d45f6080a9af",
        area: "Profile",
        resource: "Profiles",
        template: "_apis/{area}/{resource}/{id}",
    },
];

const PROFILE_AREA: (&str, &str) = ("8ccfef3d-2b87-4e99-8ccb-66e343d2daa8", "profile");

/// Core, git and location; profiles live elsewhere.
const AREAS: &[(&str, &str)] = &[
    ("79134c72-4a58-4b42-976c-04e7115f32bf", "core"),
    ("4e080c62-fa21-4fbc-8fef-2a10a2b38049", "git"),
    ("e81700f7-3be2-46de-8624-2eb35882fcaa", "Location"),
    PROFILE_AREA,
];
