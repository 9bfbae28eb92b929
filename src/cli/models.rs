//! Commands on models.

use anyhow::Result;

use super::args::{Global, ModelAction, ModelsArguments};
use super::exit::{Exit, seconds};
use super::output::{connect, print, print_json};
use super::report;

pub async fn run(global: &Global, args: &ModelsArguments) -> Result<Exit> {
    let client = connect(global)?;
    let model = match &args.action {
        None => {
            let list = client.models().await?;
            if global.is_json() {
                print_json(&list)?;
            } else {
                print(report::models(&list.data, global.style()))?;
            }
            return Ok(Exit::Done);
        }
        Some(ModelAction::Load { model }) => client.load(model).await?,
        Some(ModelAction::Unload { model }) => client.unload(model).await?,
        Some(ModelAction::Wait { model, timeout }) => {
            client.wait(model, seconds("--timeout", *timeout)?.as_secs_f64()).await?
        }
    };
    if global.is_json() {
        print_json(&model)?;
    } else {
        print(report::models(&[model], global.style()))?;
    }
    Ok(Exit::Done)
}
