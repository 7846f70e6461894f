//! Runs each program and compares what it prints with the text at its top.

// Q-025 (the main program).
testkit::programs! {
    back_pressure
    joinable
    killed_consumer
    large_transfer
    long_message
    many_to_many
}
