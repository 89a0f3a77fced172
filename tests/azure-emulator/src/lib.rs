//! Entra ID, Azure DevOps REST and Azure Repos on loopback.
