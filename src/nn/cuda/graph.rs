//! Launches recorded once and replayed: the driver then sees one call instead of hundreds. And time, as the card
//! sees it.

use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode,
};

use super::card::{Card, driver};
use crate::nn::Error;

/// A recorded sequence of launches. The buffers that they use must still be there at a replay.
pub struct Graph {
    graph: CudaGraph,
}

// SAFETY: a graph is used from one thread at a time, whichever it is: its owner's.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` launches, without running it. Nothing in it may allocate, wait or read back.
    pub fn record(card: &Card, work: impl FnOnce() -> Result<(), Error>) -> Result<Self, Error> {
        Self::begin(card)?;
        let outcome = work();
        let graph = Self::end(card);
        outcome?;
        graph
    }

    /// From here on launches are recorded instead of run, up to [`Graph::end`], which must follow.
    pub fn begin(card: &Card) -> Result<(), Error> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        card.stream().begin_capture(mode).map_err(|e| driver("recording", 0, e))
    }

    /// What was launched since [`Graph::begin`].
    pub fn end(card: &Card) -> Result<Self, Error> {
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        match card.stream().end_capture(flags).map_err(|e| driver("recording", 0, e))? {
            Some(graph) => Ok(Self { graph }),
            None => Err(Error::Device { what: "recording".into(), cause: "nothing was recorded".into() }),
        }
    }

    pub fn replay(&self) -> Result<(), Error> {
        self.graph.launch().map_err(|e| driver("replaying", 0, e))
    }
}

/// Milliseconds on the card from before `work` to after it.
pub fn time_ms(card: &Card, work: impl FnOnce() -> Result<(), Error>) -> Result<f32, Error> {
    let fail = |e| driver("taking the time", 0, e);
    let stamp = || card.stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(fail);
    let begun = stamp()?;
    work()?;
    let ended = stamp()?;
    begun.elapsed_ms(&ended).map_err(fail)
}
