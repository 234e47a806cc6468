//! Many clients at once, and an agent that is killed under them: what it acknowledged is there
//! afterwards, and no address is held by two.

mod crowd;
mod failpoint;
mod knowledge;
mod life;
mod parts;
mod sigkill;
mod verify;
