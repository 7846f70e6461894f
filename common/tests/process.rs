//! Processes: what they return, how they end, who they are.
