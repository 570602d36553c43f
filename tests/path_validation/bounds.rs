//! What is cut, changed or made up is refused without a panic and without more work than is allowed.
