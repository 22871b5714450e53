//! A worker on the official Rust SDK: counts words, and asks other workers, whatever they are written in.

use iii_sdk::protocol::TriggerRequest;
use iii_sdk::{Error, InitOptions, RegisterFunction, register_worker_from_env};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let worker = register_worker_from_env(InitOptions::default());

    worker.register_function(
        "words::count",
        RegisterFunction::new_async(|input: Value| async move {
            let text = input["text"].as_str().unwrap_or_default();
            Ok::<_, Error>(json!({ "words": text.split_whitespace().count(), "version": 1 }))
        })
        .description("Count the words of a text"),
    );

    let caller = worker.clone();
    worker.register_function(
        "words::ask",
        RegisterFunction::new_async(move |input: Value| {
            let caller = caller.clone();
            async move {
                let function_id = input["of"].as_str().unwrap_or_default();
                caller.trigger(TriggerRequest::new(function_id, json!({ "text": "a b c" }))).await
            }
        })
        .description("Call another function with a text of three words"),
    );

    // The engine ends a worker with SIGTERM; a shutdown in order takes what was registered out at once.
    signal(SignalKind::terminate())?.recv().await;
    worker.shutdown_async().await;
    Ok(())
}
