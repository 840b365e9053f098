//! The REST API and the agents' doors.
