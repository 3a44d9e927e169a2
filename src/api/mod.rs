//! Custom resources of the group `dsv.dev`: types and schema only, no client and no clock.
