//! Commands on models.

use std::time::Duration;

use anyhow::Result;

use super::args::{Global, ModelAction, ModelsArguments};
use super::exit::Exit;
use super::output::{connect, print_json};
use super::report;

pub async fn run(global: &Global, args: &ModelsArguments) -> Result<Exit> {
    let client = connect(global)?;
    let model = match &args.action {
        None => {
            let list = client.models().await?;
            if global.json {
                print_json(&list)?;
            } else {
                print!("{}", report::models(&list.data));
            }
            return Ok(Exit::Done);
        }
        Some(ModelAction::Load { model }) => client.load(model).await?,
        Some(ModelAction::Unload { model }) => client.unload(model).await?,
        Some(ModelAction::Wait { model, timeout }) => {
            let timeout = Duration::try_from_secs_f64(*timeout).unwrap_or_default();
            client.wait(model, timeout.as_secs_f64()).await?
        }
    };
    if global.json {
        print_json(&model)?;
    } else {
        print!("{}", report::models(&[model]));
    }
    Ok(Exit::Done)
}
