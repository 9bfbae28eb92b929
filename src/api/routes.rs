//! Every route there is, the document made of them, and the layers around them.

use std::sync::OnceLock;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, RefOr};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Access;
use super::problem::Shape;
use super::state::State;
use super::{
    access, batches, caller, chat, events, files, health, jobs, keys, layers, metrics, models, pages,
};
use crate::domain::code::Code;
use crate::wire::openai::ErrorBody;
use crate::wire::problem::{MEDIA_TYPE, Problem};
use crate::wire::result::ExportFormat;

/// Handlers that begin their answer within the request timeout.
fn quick_routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(jobs::list::list_jobs))
        .routes(routes!(jobs::estimate::estimate_job))
        .routes(routes!(jobs::list::get_job, jobs::change::delete_job))
        .routes(routes!(jobs::results::get_results))
        .routes(routes!(jobs::schema::result_schema))
        .routes(routes!(jobs::export::export_job))
        .routes(routes!(jobs::difference::job_difference))
        .routes(routes!(jobs::events::job_events))
        .routes(routes!(jobs::errors::job_errors))
        .routes(routes!(jobs::throughput::job_throughput))
        .routes(routes!(jobs::change::cancel_job))
        .routes(routes!(jobs::change::retry_job))
        .routes(routes!(models::model_states))
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model))
        .routes(routes!(models::load_model))
        .routes(routes!(models::unload_model))
        .routes(routes!(files::list_files))
        .routes(routes!(files::get_file, files::delete_file))
        .routes(routes!(files::file_content))
        .routes(routes!(batches::create_batch, batches::list_batches))
        .routes(routes!(batches::get_batch))
        .routes(routes!(batches::cancel_batch))
        .routes(routes!(keys::list_keys, keys::create_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(events::service_events))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(pages::openapi))
        .routes(routes!(pages::docs))
        .routes(routes!(pages::index))
        .routes(routes!(pages::job))
        .routes(routes!(pages::asset))
}

/// Handlers that read or wait for as long as the client asks, under time limits of their own.
fn patient_routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(jobs::submit::submit))
        .routes(routes!(models::wait_for_model))
        .routes(routes!(files::upload_file))
        .routes(routes!(chat::complete_chat))
        // those that read bodies bound them by the settings
        .layer(DefaultBodyLimit::disable())
}

/// The whole service. Needs no socket: tests call it as a tower service.
pub fn router(state: State) -> Router {
    let timed = middleware::from_fn_with_state(state.clone(), layers::limit_time);
    let authenticated = middleware::from_fn_with_state(state.clone(), caller::authenticate);
    let (router, _) = quick_routes().layer(timed).merge(patient_routes()).split_for_parts();
    router
        .fallback(layers::no_such_path)
        .method_not_allowed_fallback(layers::no_such_method)
        .layer(authenticated)
        .layer(CatchPanicLayer::custom(layers::on_panic))
        .layer(middleware::from_fn(layers::observe))
        .with_state(state)
}

/// The OpenAPI document of [`router`].
pub fn document() -> &'static OpenApi {
    static DOCUMENT: OnceLock<OpenApi> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let info = InfoBuilder::new()
            .title("adit")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "Batch extraction: submit jobs, follow them, read results. Every error is a Problem; under the paths tagged openai, which are OpenAI's, an OpenAiError.",
            ))
            .build();
        let bare = OpenApiBuilder::new().info(info).build();
        let (_, mut document) = OpenApiRouter::<State>::with_openapi(bare)
            .merge(quick_routes())
            .merge(patient_routes())
            .split_for_parts();
        add_problems(&mut document);
        add_security(&mut document);
        document
    })
}

/// Every operation may answer a problem; said once here rather than at each handler. Schemas that only these or
/// query parameters refer to are not collected by the handlers' macro.
fn add_problems(document: &mut OpenApi) {
    let components = document.components.get_or_insert_with(Components::new);
    let mut schemas =
        vec![(Problem::name().to_string(), Problem::schema()), (Code::name().to_string(), Code::schema())];
    schemas.push((ExportFormat::name().to_string(), ExportFormat::schema()));
    schemas.push((ErrorBody::name().to_string(), ErrorBody::schema()));
    Problem::schemas(&mut schemas);
    ErrorBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.delete, &mut item.put, &mut item.patch];
        operations.into_iter().flatten().for_each(|operation| add_problem(operation, Shape::of(path)));
    }
}

/// The name of the one security scheme.
const SCHEME: &str = "key";

/// Which scope an operation needs, from the table that the layer goes by.
fn add_security(document: &mut OpenApi) {
    let about = "An API key, as `adit keys create` shows it. Not needed where `http.auth` asks for none.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about)).build();
    let components = document.components.get_or_insert_with(Components::new);
    components.security_schemes.insert(SCHEME.into(), RefOr::T(SecurityScheme::Http(scheme)));
    for (path, item) in &mut document.paths.paths {
        let methods = [("GET", &mut item.get), ("POST", &mut item.post), ("DELETE", &mut item.delete)];
        for (method, operation) in methods {
            if let (Some(operation), Access::Scope(scope)) = (operation, access::needed(method, path)) {
                operation.security = Some(vec![SecurityRequirement::new(SCHEME, [scope.as_str()])]);
            }
        }
    }
}

fn add_problem(operation: &mut Operation, shape: Shape) {
    let (name, media_type) = match shape {
        Shape::Problem | Shape::Both => (Problem::name(), MEDIA_TYPE),
        Shape::OpenAi => (ErrorBody::name(), "application/json"),
    };
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(name))).build();
    let response =
        ResponseBuilder::new().description("A problem; `code` says which.").content(media_type, content);
    operation.responses.responses.insert("default".into(), RefOr::T(response.build()));
}
