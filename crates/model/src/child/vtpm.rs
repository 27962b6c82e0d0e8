//! What the agent and `vouchsafe-vtpm` say to each other.
