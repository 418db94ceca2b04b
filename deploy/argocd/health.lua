-- Health of a DiffusionPipeline for Argo CD (resource.customizations.health.diffusion-operator.io_DiffusionPipeline).
-- Every other reason of a condition that is not true means that a person has to do something: Degraded.
local on_the_way = {
  WaitingForStorage = true,
  Fetching = true,
  Exporting = true,
  Queued = true,
  MakingRoom = true,
  WaitingForGPU = true,
  Compiling = true,
  WaitingForEngines = true,
  Assembling = true,
  CheckingParity = true,
  WaitingForRepository = true,
  Starting = true,
  RollingOut = true,
  RemovingOldRevision = true,
  CanaryProgressing = true,
  ExperimentStarting = true,
}

local function ready_condition()
  if obj.status == nil or obj.status.conditions == nil then
    return nil
  end
  for _, condition in ipairs(obj.status.conditions) do
    if condition.type == "Ready" then
      return condition
    end
  end
  return nil
end

local function judge()
  local ready = ready_condition()
  if ready == nil then
    return "Progressing", "The operator has not looked at it yet."
  end
  local message = ready.reason .. ": " .. (ready.message or "")
  if ready.observedGeneration ~= obj.metadata.generation then
    return "Progressing", "The operator has not looked at this generation yet."
  end
  if ready.status == "True" then
    return "Healthy", message
  end
  if ready.reason == "Suspended" then
    return "Suspended", message
  end
  if on_the_way[ready.reason] then
    return "Progressing", message
  end
  return "Degraded", message
end

local health = {}
health.status, health.message = judge()
return health
