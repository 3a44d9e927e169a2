//! Just-in-time PostgreSQL accounts for Kubernetes.
