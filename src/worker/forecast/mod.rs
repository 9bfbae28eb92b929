//! When jobs will end: measured rates, the work ahead in the queue, stages to come, and loads that go on.
//!
//! Pure but for [`outlook`], `gather`, `engines` and `sketch`, which read the database, the engines and the models' states into a
//! [`world::World`]: [`work`] says what an item takes, [`cost`] what an engine's steps cost, [`simulate`] plays queue
//! and engines forward, [`drag`] slows it by what the fluid does not see, [`record`] bounds it by how far off earlier forecasts were. What is not known is said to
//! be unknown, with its reason; nothing is invented. Jobs that come steadily are held to go on coming for a while
//! ([`arrivals`]); others are not foreseen, and what they did to earlier forecasts is in the bounds of the next.

pub mod arrivals;
pub mod capacity;
pub mod cost;
pub mod drag;
mod engines;
mod gather;
pub mod outlook;
pub mod record;
mod scene;
pub mod simulate;
mod sketch;
pub mod told;
pub mod work;
pub mod world;

pub use outlook::Outlook;
