//! Runs each program and compares what it prints with the text at its top.

// A-018 (the main program): all `One` before any `Two`.
testkit::programs! {
    all_settled
    as_completed
    cancel
    first_error
    limited_concurrency
    results_in_order
    sequential
    shield
    task_group
    timeout
}
