//! What runs alongside a server, and how each of these tasks is finished at shutdown.

use tokio::task::spawn_blocking;

use super::signals::Signals;

/// When a task is finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ShutdownStage {
    /// While requests are in flight: it would keep them from ending.
    BeforeRequests,
    /// When no request is left: requests give it something to do.
    AfterRequests,
}

/// A task that runs alongside the server, on a thread of its own.
struct BackgroundTask {
    name: &'static str,
    stage: ShutdownStage,
    /// Ends it, and waits for as long as it is worth.
    finish: Box<dyn FnOnce() + Send>,
}

/// All tasks that run alongside the server, finished in the order in which they were added.
#[derive(Default)]
pub(super) struct BackgroundTasks(Vec<BackgroundTask>);

impl BackgroundTasks {
    /// Adds a task: `finish` ends it, and may block for as long as it is worth.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        stage: ShutdownStage,
        finish: impl FnOnce() + Send + 'static,
    ) {
        self.0.push(BackgroundTask {
            name,
            stage,
            finish: Box::new(finish),
        });
    }

    /// Finishes the tasks of one stage. An interrupt skips the one that is being waited for.
    pub(super) async fn finish(&mut self, stage: ShutdownStage, signals: &mut Signals) {
        for task in self.0.extract_if(.., |task| task.stage == stage) {
            tokio::select! {
                // A panic has been reported by its hook.
                _ = spawn_blocking(task.finish) => {}
                () = signals.force() => {
                    let name = task.name;
                    tracing::warn!(task = name, "interrupted: not waiting for the {name}");
                }
            }
        }
    }
}
