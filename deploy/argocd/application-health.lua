-- Health of an Application for Argo CD (resource.customizations.health.argoproj.io_Application): its own. Without it an
-- app of apps starts all of its waves at once.
local status = obj.status or {}
local own = status.health or {}
return { status = own.status or "Progressing", message = own.message or "" }
